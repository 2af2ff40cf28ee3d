"""Files copied between nodes, and between a node and the machine of a program.

`Files` is the part of a Controller that copies; at the nodes, `directives` is the plugin of the namespace `file`. One
end of a copy is a `sender.Sender`, the other a `receiver.Receiver`, wherever each of them runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zmesh.lazy import lazy_attributes

if TYPE_CHECKING:
    from zmesh.files.copy_outcomes import CopyOutcomes
    from zmesh.files.copying import CopyManyOptions, CopyOptions, Files
    from zmesh.files.places import NodePath, Place
    from zmesh.files.progress import Copied, Progress
else:
    __getattr__ = lazy_attributes(
        __name__,
        {
            "copy_outcomes": ("CopyOutcomes",),
            "copying": ("CopyManyOptions", "CopyOptions", "Files"),
            "places": ("NodePath", "Place"),
            "progress": ("Copied", "Progress"),
        },
    )

__all__ = ["Copied", "CopyManyOptions", "CopyOptions", "CopyOutcomes", "Files", "NodePath", "Place", "Progress"]

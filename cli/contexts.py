"""`zmesh context`: the meshes of this user on this machine, and which of them commands use."""

from __future__ import annotations

import os

from zmesh.trust import Contexts, named_folder
from zmesh_cli.exit_codes import DONE, USAGE, Failure
from zmesh_cli.terminal import print_error, printable, record, write_line

AUTHORITY = "authority"


def ls(*, as_json: bool) -> int:
    """List the contexts."""
    contexts = Contexts()
    current = contexts.current
    for name in contexts.names():
        folder = contexts.folder_of(name)
        if as_json:
            write_line(record("zmesh.context/1", name=name, current=name == current, folder=str(folder)))
        else:
            write_line(f"{'*' if name == current else ' '} {printable(name)}  {printable(str(folder))}\n")
    if not (as_json or contexts.names()):
        print_error("there are no contexts; 'zmesh init' and 'zmesh join zm1...' make one")
    if (named := named_folder()) is not None:
        print_error(f"{named} goes before them (ZMESH_STATE or STATE_DIRECTORY)")
    return DONE


def use(name: str) -> int:
    """Make a context the current one."""
    Contexts().use(name)
    return DONE


def rm(name: str, *, yes: bool) -> int:
    """Delete a context."""
    contexts = Contexts()
    authority = os.path.join(contexts.folder_of(name), AUTHORITY)
    if os.path.isdir(authority) and not yes:
        text = f"the authority's key of a mesh lies in {authority}, and who lets others in is lost with it"
        raise Failure(f"{text}; copy it elsewhere first, or say --yes", USAGE)
    contexts.remove(name)
    return DONE

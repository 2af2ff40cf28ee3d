"""The server's side of one node: requests become work, and the results of work become replies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from zmesh.core.effects import Deliver, Report
from zmesh.core.limits import DEFAULT_LIMITS, Limits
from zmesh.core.message import Address, RequestHeader
from zmesh.errors import NotAllowed
from zmesh.identity import FOR_NEWCOMERS, Policy
from zmesh.payloads import PayloadStorage
from zmesh.runtime import Driver, Tasks, must_propagate
from zmesh.serving.directives import Directives
from zmesh.serving.incoming import IncomingRequest
from zmesh.serving.index import RequestIndex
from zmesh.serving.request_counts import RequestCounts
from zmesh.serving.runner import Runner
from zmesh.serving.spool_quota import SpoolQuota
from zmesh.serving.work import Work

if TYPE_CHECKING:
    from zmesh.observe import RequestObserver


class Subject(NamedTuple):
    """The subject of a decision about permissions: a node's id, empty if it is not known, and its certified tags."""

    id: str
    tags: tuple[str, ...] = ()


Builtin = Callable[[Work], object]
"""The function of a built-in directive; returns a value or a future of it. Raises ValueError for a bad payload."""


class Serving:
    """The requests of other nodes (and of this one) at this node. `note` is called with reports of dropped replies."""

    def __init__(
        self,
        node_id: str,
        driver: Driver,
        tasks: Tasks,
        storage: PayloadStorage,
        directives: Directives,
        sections: Mapping[str, Mapping[str, object]],
        note: Callable[[Report], None],
        *,
        max_workers: int,
        max_work: int,
        max_processes: int,
        isolation: Mapping[str, Mapping[str, float]],
        limits: Limits = DEFAULT_LIMITS,
        policy: Policy | None = None,
    ) -> None:
        self.node_id = node_id
        self.driver = driver
        self.tasks = tasks
        self.storage = storage
        self.sections = sections
        self.note = note
        self.policy = policy or Policy()
        self.observers: list[RequestObserver] = []
        """Observe each request from its first chunk to its end."""
        self.builtins: dict[str, Builtin] = {}
        self.counts = RequestCounts()
        self.served = 0
        """Requests that were taken up, except for those of built-in directives."""
        self.spool_quota = SpoolQuota(node_id, limits)
        self.runner = Runner(
            directives,
            max_workers=max_workers,
            max_work=max_work,
            max_processes=max_processes,
            isolation=isolation,
            spool_dir=storage.folder,
            note=note,
        )
        self._index: RequestIndex[IncomingRequest] = RequestIndex()
        driver.accept, driver.find = self.accept, self._index.get

    def configure(
        self,
        sections: Mapping[str, Mapping[str, object]],
        *,
        max_workers: int,
        max_work: int,
        max_processes: int,
        isolation: Mapping[str, Mapping[str, float]],
        limits: Limits | None,
    ) -> None:
        """Apply other settings to the work that starts from now on; `limits` None: the same."""
        self.sections = sections
        self.runner.configure(max_workers, max_work, max_processes, isolation)
        if limits is not None:
            self.spool_quota.limits = limits

    def __len__(self) -> int:
        """The number of requests without a final reply."""
        return len(self._index)

    def add_builtin(self, directive: str, function: Builtin) -> None:
        """Register a built-in directive, which runs on the loop at once."""
        self.builtins[directive] = function

    def find(self, number: int) -> IncomingRequest | None:
        """The request under way with that message id, or with a reply of that id, the id read as a number."""
        request = self._index.find(number)
        return request if request is not None and request.pending_result is None else None

    def similar_ids(self, number: int, similarity: float) -> list[str]:
        """The message id of a request under way that agrees with `number` in that share of its hex digits, if any."""
        id = self._index.most_similar(number, similarity)
        return [] if id is None else [id.hex()]

    def cancel(self, request: IncomingRequest, by: str, ended: Callable[[], None]) -> None:
        """Cancel a request for the node `by`, and call `ended` when its work has ended."""
        request.stop("cancelled", by)
        self.runner.when_ended(request.message_id, ended)

    def accept(self, chunk: Deliver) -> None:
        """Take the first chunk of a request, or one that the engine emitted before it had the request's handle.

        A request whose work ends at once is over when this returns, and was never entered anywhere.
        """
        opening = chunk.header
        if not isinstance(opening, RequestHeader):
            known = self._index.get(chunk.stream.message_id)
            if known is not None:
                known.on_chunk(chunk)
            else:  # its final reply was sent
                self.driver.release_credit(chunk.stream, chunk.credit)
            return
        request = IncomingRequest(self, chunk, opening)
        if self.observers:
            request.endings = [each.accepted(request) for each in self.observers]
        if opening.directive not in self.builtins:
            self.served += 1
            self.counts.taken_up(request.sender, opening.directive)
        try:
            if self._is_allowed(request):
                request.begin(chunk)
        except BaseException as error:
            if must_propagate(error):
                raise
            self.driver.fail(request, request.id, error)
        if not request.ended:
            request.indexed = True
            self._index.add(request)
        if not request.ended or request.is_feeding:
            self.driver.engine.attach(request.id, request)

    def _is_allowed(self, request: IncomingRequest) -> bool:
        """Whether its sender may call its directive; if not, the request is ended, and no payload read."""
        if (
            self.policy.allows_all(request.directive) and "@" not in request.sender
        ):  # so are most, and all else would be
            return True
        if request.directive not in FOR_NEWCOMERS and self.driver.engine.is_enrolling(request.sender):
            text = f"node {self.node_id!r} lets {request.sender!r} do nothing but enrol, as it has no certificate"
            request.finish(reason=NotAllowed.code, error=text)
            return False
        refusal = self.refusal(request.directive, request.sender)
        if refusal is not None:
            request.finish(reason=NotAllowed.code, error=refusal)
            self.note(Report("call_refused", None, None, refusal))
        return refusal is None

    def subject(self, sender: str) -> Subject:
        """The subject that a sender acts as.

        A leaf (`cli-4f2a@hub`) may do what its host may. One that has a certificate of its own (`ada.4f2a@hub`) may do
        what that allows; one that has not shown it, although its name has a dot, what all nodes may.
        """
        engine = self.driver.engine
        if engine.credentials is None:
            return Subject(sender.rpartition("@")[2])
        identity = engine.identity(Address(sender))
        return Subject(identity.id, identity.tags) if identity is not None else Subject("")

    def is_own(self, sender: str) -> bool:
        """Whether this is the node itself, or its user over its own socket."""
        return sender == self.node_id or self.driver.engine.is_local(Address(sender))

    def refusal(self, directive: str, sender: str) -> str | None:
        """The text of a refusal, with the rule that would allow the call; None if the sender may call the directive.

        This node may do anything here, and so may its user over its own socket.
        """
        if self.is_own(sender):
            return None
        who, tags = self.subject(sender)
        decision = self.policy.decide(directive, who, tags)
        if decision.allowed:
            return None
        held = f" (tags: {', '.join(tags)})" if tags else ""
        text = f"node {self.node_id!r} does not let {(who or sender)!r}{held} call {directive}"
        remedy = f"its configuration would, with {decision.remedy}"
        if not who:
            remedy = f"{sender!r} has not shown its certificate; is its zmesh an older one?"
        return f"{text} ({decision.rule}); {remedy}"

    def forget(self, request: IncomingRequest) -> None:
        """Remove a request that has had its final reply from the index."""
        if self._index.get(request.id) is request:
            self._index.pop(request.id)

    async def close(self) -> None:
        """Cancel all work and wait for its end; requests whose payload was still arriving are dropped."""
        self._stop_unstarted()
        await self.runner.close()

    def close_now(self) -> None:
        """Cancel all work without waiting for its end."""
        self._stop_unstarted()
        self.runner.close_now()

    def _stop_unstarted(self) -> None:
        for request in self._index:
            if not request.started or request.pending_result is not None:
                with suppress(RuntimeError):  # the loop is closed, and nothing that waits in it goes on
                    request.stop("cancelled")

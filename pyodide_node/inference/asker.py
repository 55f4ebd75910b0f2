"""Asks the network: prompt in, text out, over whatever route there is just now.

The asker keeps tokenizer, embedding, head and sampling. When a stage fails the route is planned
anew and fed every id again; drawing depends on position and seed alone, so the text goes on as
if nothing had happened.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from pyodide_node.budget import Budget
from pyodide_node.chat.chat import Conversation
from pyodide_node.delivery.catalog import Model
from pyodide_node.errors import ConfigError, NoRoute, StageFailed, Unreachable
from pyodide_node.hosts.base import Buffer, Ends, Host
from pyodide_node.inference.generation import Chunk, FinishReason, Generation, InferenceRequest
from pyodide_node.inference.holding import Holding
from pyodide_node.inference.route import Hop, Offer, find_route
from pyodide_node.inference.sampling import Sampling, first_k, pick
from pyodide_node.inference.session import HopReport, Session
from pyodide_node.mesh.mesh import Mesh
from pyodide_node.mesh.peer import peer_id
from pyodide_node.model.manifest import Manifest
from pyodide_node.wire import limits
from pyodide_node.wire.messages import Message

__all__ = ["Answer", "Asker"]

_ROUTE_PATIENCE = 20.0
"""Seconds to wait for somebody to serve what is missing: nodes move within a few."""
_AVOID_FIRST, _AVOID_LAST = 15.0, 300.0
"""Seconds a failed peer is passed over, doubling with each failure."""
_MOVED = 2.0
"""Seconds until a node that serves other blocks now has said so to everybody."""
_FAILURES = 8
"""Failures without a single new token between them, after which the asker gives up."""


@dataclass(slots=True)
class Answer:
    """How one answer came about; filled in while it streams."""

    model: str
    prompt_ids: list[int]
    ids: list[int]
    text: str = ""
    finish_reason: FinishReason = "length"
    route: list[dict[str, Any]] = field(default_factory=list)
    reroutes: int = 0
    ttft_ms: float = 0.0
    decode_tok_s: float = 0.0


@dataclass(slots=True)
class _Avoided:
    until: float
    delay: float


class Asker:
    """Runs answers; several may be under way at once."""

    def __init__(self, host: Host, mesh: Mesh, budget: Budget, holding: Holding) -> None:
        self._host = host
        self._mesh = mesh
        self._holding = holding
        self._budget = budget
        self._conversation: Conversation | None = None
        self._sessions: dict[bytes, Session] = {}
        self._avoided: dict[bytes, _Avoided] = {}
        self._directory_changed = asyncio.Event()

    def directory_changed(self) -> None:
        self._directory_changed.set()

    def peer_left(self, peer: bytes) -> None:
        for session in self._sessions.values():
            session.peer_left(peer)

    def take(self, peer: bytes, message: Message, payload: Buffer) -> None:
        """A stage's answer to one of this asker's sessions."""
        session = self._sessions.get(getattr(message, "session", b""))
        if session is not None:
            session.take(peer, message, payload)

    async def generate(
        self,
        model: Model,
        ends: Ends,
        request: InferenceRequest,
        told: Callable[[Answer], None] = lambda answer: None,
    ) -> AsyncIterator[Chunk]:
        """Chunks of the answer. `told` gets the Answer when the route is known and at the end.

        Raises ConfigError for a prompt that does not fit, ManifestError for a chat template that
        does not work, NoRoute, StageFailed, Unreachable.
        """
        begun = self._host.clock.monotonic()
        generation, capacity = self._prepare(model, ends, request)
        answer = Answer(
            model=model.manifest.name,
            prompt_ids=generation.prompt_ids,
            ids=generation.ids,
            text=generation.text,
        )
        first_at: float | None = None
        before, failures = len(generation.ids), 0
        while generation.finished is None:
            try:
                session = await self._open(model, capacity)
            except (StageFailed, Unreachable) as error:
                failures = self._count(error, failures)
                continue
            try:
                answer.route = self._describe(session)
                told(answer)
                hidden = await self._feed(session, ends, 0, generation.known)
                while True:
                    token = await self._sample(ends, hidden, request.sampling, generation, model)
                    if first_at is None:
                        first_at = self._host.clock.monotonic()
                    failures = 0
                    chunk = generation.accept(token)
                    if chunk is not None:
                        yield chunk
                    if generation.finished is not None or generation.position >= capacity:
                        break
                    position = generation.position - 1
                    hidden = await self._feed(session, ends, position, [token])
                generation.finished = generation.finished or "length"
            except (StageFailed, Unreachable) as error:
                failures = self._count(error, failures)
                answer.reroutes += 1
            finally:
                answer.route = self._describe(session)
                self._sessions.pop(session.id, None)
                session.close()
        self._finish(answer, generation, begun, first_at, len(generation.ids) - before)
        told(answer)

    # --- one answer -----------------------------------------------------------------------

    def _prepare(
        self, model: Model, ends: Ends, request: InferenceRequest
    ) -> tuple[Generation, int]:
        manifest = model.manifest
        prompt_ids = self._encode(manifest, ends, request)
        if not prompt_ids:
            raise ConfigError("the prompt is empty", setting="prompt")
        if len(prompt_ids) >= manifest.context_length:
            raise ConfigError(
                f"the prompt has {len(prompt_ids)} tokens and {manifest.name} takes at most"
                f" {manifest.context_length - 1}; shorten it",
                setting="prompt",
                tokens=len(prompt_ids),
                context=manifest.context_length,
            )
        if any(not 0 <= token < manifest.vocab_size for token in request.resume_ids):
            raise ConfigError("resume_ids are not of this model", setting="resume_ids")
        generation = Generation(prompt_ids, request, ends.decode, manifest.eos_ids)
        capacity = min(len(prompt_ids) + request.max_tokens, manifest.context_length)
        return generation, capacity

    def _encode(self, manifest: Manifest, ends: Ends, request: InferenceRequest) -> list[int]:
        if self._conversation is None:
            self._conversation = Conversation(manifest.chat, ends.special_tokens)
        if request.messages:
            prompt = self._conversation.prompt(request.messages, self._host.clock.wall())
        else:
            prompt = self._conversation.plain(request.prompt)
        ids = [token for piece in prompt.pieces for token in ends.encode(piece)]
        return [manifest.bos_id, *ids] if prompt.add_bos and manifest.bos_id is not None else ids

    async def _open(self, model: Model, capacity: int) -> Session:
        hops, seconds = await self._route(model, capacity)
        session = Session(self._host, self._mesh, model.manifest, hops, capacity, seconds)
        self._sessions[session.id] = session
        try:
            await session.open()
        except BaseException:
            self._sessions.pop(session.id, None)
            session.close()
            raise
        return session

    async def _feed(self, session: Session, ends: Ends, position: int, ids: list[int]) -> Buffer:
        if len(ids) > limits.PREFILL_CHUNK:
            await ends.prepare(ids)
        chunks = [
            await self._budget.cpu.run(ends.embed(ids[at : at + limits.PREFILL_CHUNK]))
            for at in range(0, len(ids), limits.PREFILL_CHUNK)
        ]
        return await session.run(position, chunks)

    async def _sample(
        self,
        ends: Ends,
        hidden: Buffer,
        sampling: Sampling,
        generation: Generation,
        model: Model,
    ) -> int:
        vocabulary = model.manifest.vocab_size
        k = first_k(sampling, vocabulary)
        seen = frozenset(generation.known) if sampling.penalised else frozenset()
        while True:
            candidates = await self._budget.cpu.run(ends.head(hidden, sampling.scale, k))
            token = pick(candidates, sampling, generation.position, vocabulary, seen)
            if token is not None:
                return token
            k = min(k * 8, vocabulary)

    def _finish(
        self,
        answer: Answer,
        generation: Generation,
        begun: float,
        first_at: float | None,
        made: int,
    ) -> None:
        answer.ids, answer.text = generation.ids, generation.text
        answer.finish_reason = generation.finished or "length"
        if first_at is not None:
            answer.ttft_ms = (first_at - begun) * 1000
            spent = self._host.clock.monotonic() - first_at
            answer.decode_tok_s = max(0, made - 1) / spent if spent > 0 else 0.0

    # --- the route ------------------------------------------------------------------------

    async def _route(self, model: Model, capacity: int) -> tuple[list[Hop], float]:
        """The cheapest route now and the seconds a position should take by it; missing blocks
        are loaded here or waited for."""
        deadline = self._host.clock.monotonic() + _ROUTE_PATIENCE
        blocks = model.manifest.blocks
        while True:
            self._directory_changed.clear()
            offers = self._offers(model, capacity)
            try:
                return find_route(blocks, offers)
            except NoRoute as error:
                missing = error.data["blocks"]
                if await self._holding.cover(missing[0], _run_of(missing)):
                    continue
                left = deadline - self._host.clock.monotonic()
                if left < 0.01:
                    raise error from None
                try:
                    async with asyncio.timeout(min(left, 1.0)):  # avoided peers come back by time
                        await self._directory_changed.wait()
                except TimeoutError:
                    continue

    def _offers(self, model: Model, capacity: int) -> list[Offer]:
        now = self._host.clock.monotonic()
        size = model.manifest.hidden_bytes(1)
        offers = self._holding.offers(capacity)
        for entry in self._mesh.entries(bytes.fromhex(model.id)):
            avoided = self._avoided.get(entry.public_key)
            said = entry.announcement
            if (avoided is not None and avoided.until > now) or said.free_positions < capacity:
                continue
            offers.append(
                Offer(
                    peer=entry.public_key,
                    first=said.first,
                    last=said.last,
                    seconds_per_block=1 / said.throughput,
                    latency=self._mesh.latency(entry.public_key, size),
                )
            )
        return offers

    def _count(self, error: StageFailed | Unreachable, failures: int) -> int:
        """Remember whom to pass over; raises when there is no getting on."""
        reason = error.data.get("reason")
        for peer in (error.data.get("peer"), error.data.get("fed_by")):
            if isinstance(peer, bytes) and peer != self._host.keys.public_key:
                self._avoid(peer, reason)
        if failures + 1 >= _FAILURES:
            raise error
        return failures + 1

    def _avoid(self, peer: bytes, reason: str | None) -> None:
        if reason == "gone":
            return  # with its announcement; when that is back, so is the peer
        old = self._avoided.get(peer)
        if reason == "moved":
            wait, delay = _MOVED, old.delay if old is not None else 0.0
        else:
            wait = delay = min(old.delay * 2, _AVOID_LAST) if old and old.delay else _AVOID_FIRST
        self._avoided[peer] = _Avoided(self._host.clock.monotonic() + wait, delay)

    def _describe(self, session: Session) -> list[dict[str, Any]]:
        """The route as people and programs read it."""
        own = self._host.keys.public_key
        described = []
        for hop, report in zip(session.hops, session.reports, strict=True):
            entry = self._mesh.directory.get(hop.peer)
            local = hop.peer == own
            host = self._host.kind if local or entry is None else entry.announcement.host
            engine = self._host.engine.name if local or entry is None else entry.announcement.engine
            described.append(
                {
                    "peer": peer_id(hop.peer),
                    "host": host,
                    "first_block": hop.first,
                    "last_block": hop.last,
                    "engine": engine,
                    "path": self._path(hop, report, local=local),
                    "step_ms": report.step_ms,
                }
            )
        return described

    def _path(self, hop: Hop, report: HopReport, *, local: bool) -> str:
        if local and report.path in (None, "local"):
            return "local"
        return report.path or self._mesh.path(hop.peer) or "relay"


def _run_of(missing: list[int]) -> int:
    """Where the first run of consecutive missing blocks ends."""
    end = missing[0] + 1
    while end in missing:
        end += 1
    return end

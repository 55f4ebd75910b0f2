"""Rows of the embedding, read piece by piece: the same numbers as the whole table's."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from build.shards.builder import build
from build.shards.private import lock
from build.shards.source import Bits, open_source
from pyodide_node.errors import EngineError, KwaaiNetError, Unreachable
from pyodide_node.hosts import rows as rows_module
from pyodide_node.hosts.base import Ends
from pyodide_node.hosts.crypto import SoftwareKeys
from pyodide_node.hosts.expansion import widened_rows
from pyodide_node.hosts.native.engine import NativeEngine
from pyodide_node.hosts.rows import Rows
from pyodide_node.model.locked import file_numbers
from pyodide_node.model.manifest import PIECE, Manifest, decode_manifest
from pyodide_node.model.table import Table, embedding_table
from tests.build.families import write_family
from tests.hosts.worlds import World, conforms

KEY = bytes(range(32))
WIDTHS: tuple[Bits, ...] = (4, 8, 16, 32)
FAMILIES = ("llama3", "qwen2")
"""Both are here: a table of its own, and one that is the head's too."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, Bits], Path]:
    root, made = tmp_path_factory.mktemp("rows"), {}
    for family in FAMILIES:
        source = open_source(write_family(root / family, family))
        for bits in WIDTHS:
            made[family, bits] = folder = root / f"{family}-{bits}"
            build(source, folder, family, bits=bits)
    return made


async def looked_up(folder: Path, ids: list[int], *, by_row: bool) -> tuple[Manifest, bytes]:
    """The embeddings of `ids`, from the table in memory or from the file's pieces."""
    manifest = decode_manifest((folder / "manifest.json").read_bytes())
    keys = SoftwareKeys(bytes(32), bytes)

    async def blob(sha256: str, size: int) -> bytes:
        content = (folder / "blobs" / sha256).read_bytes()
        number = file_numbers(manifest).get(sha256) if manifest.private else None
        return content if number is None else await keys.unlock(KEY, number, content)

    async def piece(number: int) -> bytes:
        path = folder / "blobs" / manifest.embed.sha256
        content = path.read_bytes()[number * PIECE : (number + 1) * PIECE]
        file = file_numbers(manifest)[manifest.embed.sha256]
        return await keys.unlock(KEY, file, content, number) if manifest.private else content

    engine = NativeEngine()
    ends: Ends = await engine.load_ends(manifest, blob, None, piece if by_row else None)
    try:
        return manifest, await ends.embed(ids)
    finally:
        await ends.close()
        engine.close()


@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("family", FAMILIES)
async def test_rows_are_those_of_the_graph(
    models: dict[tuple[str, Bits], Path], family: str, bits: Bits
) -> None:
    folder = models[family, bits]
    manifest, _ = await looked_up(folder, [0], by_row=False)
    ids = [*range(0, manifest.vocab_size, 3), 5, 5, manifest.vocab_size - 1]
    _, wanted = await looked_up(folder, ids, by_row=False)
    _, found = await looked_up(folder, ids, by_row=True)
    assert found == wanted


def test_both_forms_of_the_file_are_tried(models: dict[tuple[str, Bits], Path]) -> None:
    tied = set()
    for family in FAMILIES:
        manifest = decode_manifest((models[family, 4] / "manifest.json").read_bytes())
        tied.add(manifest.embed == manifest.head)
    assert tied == {True, False}


async def test_rows_of_a_private_model(
    models: dict[tuple[str, Bits], Path], tmp_path: Path
) -> None:
    lock(models["llama3", 32], tmp_path / "locked", KEY, [bytes(32)])
    _, wanted = await looked_up(models["llama3", 32], [1, 2, 500], by_row=False)
    manifest, found = await looked_up(tmp_path / "locked", [1, 2, 500], by_row=True)
    assert manifest.private is not None
    assert found == wanted


@given(
    data=st.data(),
    bits=st.sampled_from(WIDTHS),
    rows=st.integers(1, 40),
    blocks=st.integers(1, 3),
    segment=st.integers(5, 300),
    offset=st.sampled_from([0, 64, 256]),
)
async def test_rows_may_lie_across_any_pieces(
    data: st.DataObject, bits: Bits, rows: int, blocks: int, segment: int, offset: int
) -> None:
    columns = 32 * blocks
    end = offset + rows * columns * bits // 8
    scales = end + -end % 64 if bits <= 8 else None
    table = Table(rows, columns, bits, offset, scales, segment)
    random = np.random.default_rng(rows)
    size = end if scales is None else scales + rows * table.scale_bytes
    file = bytearray(random.bytes(size))
    if bits > 8:
        kind = "<f4" if bits == 32 else "<f2"
        file[offset:end] = random.normal(size=rows * columns).astype(kind).tobytes()
    elif scales is not None:
        file[scales:size] = random.normal(size=rows * blocks).astype("<f2").tobytes()
    asked: list[int] = []

    async def piece(number: int) -> bytes:
        asked.append(number)
        return bytes(file[number * segment : (number + 1) * segment])

    ids = data.draw(st.lists(st.integers(0, rows - 1), min_size=1, max_size=60))
    found = await Rows(table, piece, widened_rows).of(ids)
    weights, each = file[offset:end], b"" if scales is None else bytes(file[scales:size])
    whole = np.frombuffer(widened_rows(bytes(weights), each, table), "<f4").reshape(rows, columns)
    assert found == whole[ids].tobytes()
    assert len(asked) == len(set(asked))


def plain(rows: int) -> Table:
    return Table(rows, 32, 32, 0, None, 128)


async def test_a_long_text_reads_each_piece_once() -> None:
    asked: list[int] = []

    async def piece(number: int) -> bytes:
        asked.append(number)
        return number.to_bytes(4, "little") * 32

    rows = Rows(plain(1000), piece, widened_rows)
    text = [*range(500), *range(500)]
    await rows.prepare(text)
    for at in range(0, len(text), 64):
        some = np.frombuffer(await rows.of(text[at : at + 64]), "<u4").reshape(-1, 32)
        assert some[:, 0].tolist() == text[at : at + 64]
    assert asked == list(range(500))


async def test_memory_is_bounded_whatever_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_module, "ROWS_BYTES", 10 * 128)
    asked: list[int] = []

    async def piece(number: int) -> bytes:
        asked.append(number)
        return number.to_bytes(4, "little") * 32

    rows = Rows(plain(1000), piece, widened_rows)
    ids = list(range(95))
    assert np.frombuffer(await rows.of(ids), "<u4").reshape(-1, 32)[:, 0].tolist() == ids
    assert len(asked) == 95
    await rows.of([94, 93, 90])  # the last are still here
    assert len(asked) == 95
    await rows.prepare(ids)
    await rows.of(ids[:10])
    await rows.of(ids[:10])
    assert len(asked) <= 95 + 20


async def test_a_piece_that_cannot_be_had_is_the_readers_error() -> None:
    async def piece(number: int) -> bytes:
        raise Unreachable("nobody has it")

    rows = Rows(plain(3), piece, widened_rows)
    for _ in range(2):  # and nothing is half there
        with pytest.raises(Unreachable):
            await rows.of([1])


@conforms
async def test_every_host_reads_rows(world: World) -> None:
    m, engine = world.manifest, (await world.host()).engine
    content = bytes(await world.blob(m.embed.sha256, m.embed.bytes))

    async def piece(number: int) -> bytes:
        return content[number * PIECE : (number + 1) * PIECE]

    whole = await engine.load_ends(m, world.blob)
    ends = await engine.load_ends(m, world.blob, None, piece)
    every = list(range(m.vocab_size))
    await ends.prepare(every)
    assert await ends.embed(every) == await whole.embed(every)
    await whole.prepare(every)
    for bad in ([], [-1], [m.vocab_size]):
        with pytest.raises(EngineError):
            await ends.embed(bad)
        with pytest.raises(KwaaiNetError):
            await ends.prepare(bad)
    await ends.close()
    with pytest.raises(EngineError):
        await ends.embed([0])


@conforms
async def test_a_file_of_another_layout_is_not_read_by_rows(world: World) -> None:
    async def piece(number: int) -> bytes:
        return b""

    m, engine = world.manifest, (await world.host()).engine
    other = msgspec.structs.replace(m, vocab_size=m.vocab_size - 1)
    assert embedding_table(other) is None
    with pytest.raises(EngineError, match="row by row"):
        await engine.load_ends(other, world.blob, None, piece)

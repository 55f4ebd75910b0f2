"""Our blocks look like those of a server of Petals, under names of our own."""

from __future__ import annotations

from relay_server.bridge.feed import Served
from relay_server.bridge.petals import MODELS, Announced, announced, items, prefix_of
from relay_server.bridge.values import key_of, pack

MODEL = Served("ab" * 32, "Llama 3.1/8B", [1, 2, 0, 1], [10.0, 20.0, 0.0, 5.0])
UID = "kwaainet-Llama-3-1-8B-abababababab"


def all_of(prefix: str = "kwaainet") -> list[Announced]:
    made = announced(
        [MODEL],
        peer="12D3peer",
        prefix=prefix,
        state="joining",
        name="ours",
        relay="https://relay.example.org",
    )
    return list(made)


def test_every_served_block_has_its_record() -> None:
    def more(first: int, last: int) -> dict[str, object]:
        return {"public_name": "ours", "start_block": first, "end_block": last}

    assert all_of() == [
        Announced(f"{UID}.0", "12D3peer", (1, 10.0, more(0, 2))),
        Announced(f"{UID}.1", "12D3peer", (1, 20.0, more(0, 2))),
        Announced(f"{UID}.3", "12D3peer", (1, 5.0, more(3, 4))),
        Announced(
            MODELS,
            UID,
            {"num_blocks": 4, "repository": f"https://relay.example.org/models/{'ab' * 32}/"},
        ),
    ]


def test_petals_forbids_dots_and_spaces_in_a_prefix() -> None:
    assert prefix_of(MODEL, "kwaainet") == UID
    assert prefix_of(Served("cd" * 32, "…", [1], [1.0]), "p") == "p-cdcdcdcdcdcd"


def test_a_private_prefix_is_on_no_list() -> None:
    assert all(one.name != MODELS for one in all_of("_ours"))


def test_what_is_taken_back_is_offline() -> None:
    block, *_, model = all_of()
    assert block.withdrawn() == Announced(block.name, block.subkey, (0, 0.0, {}))
    assert model.withdrawn() is None


def test_records_lie_where_hivemind_looks() -> None:
    (item,) = items(all_of()[:1], 99.0)
    assert (item.key, item.subkey, item.expires) == (key_of(f"{UID}.0"), pack("12D3peer"), 99.0)

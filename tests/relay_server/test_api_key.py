"""`kwaainet api-key`, and the API of a relay that runs as people run it."""

from __future__ import annotations

import re
from pathlib import Path

from relay_server.settings import default_models
from tests.relay_server.http import get
from tests.relay_server.test_cli import greeting, kwaainet, said


async def key(state: Path, *arguments: str) -> tuple[int | None, str, str]:
    return await said("api-key", *arguments, "--state", str(state))


async def test_a_key_is_made_shown_once_and_revoked(tmp_path: Path) -> None:
    code, made, hint = await key(tmp_path, "add", "ada", "--tokens-per-day", "1000")
    assert code == 0
    assert re.fullmatch(r"kwaai-[0-9a-f]{12}-[A-Za-z0-9_-]{43}\n", made)
    assert "not shown again" in hint
    code, listed, _ = await key(tmp_path, "list")
    assert code == 0
    assert "ada" in listed
    assert "0 of 1000" in listed
    assert made.split("-")[1] in listed
    assert made.strip()[-43:] not in listed
    code, out, _ = await key(tmp_path, "revoke", "ada")
    assert (code, out[:11]) == (0, "revoked ada")
    assert "revoked" in (await key(tmp_path, "list"))[1]


async def test_a_mistake_is_one_line(tmp_path: Path) -> None:
    await key(tmp_path, "add", "ada")
    for arguments in (["add", "ada"], ["revoke", "bob"], ["add", "eve", "--tokens-per-day", "0"]):
        code, _, error = await key(tmp_path, *arguments)
        assert code == 1
        assert len(error.splitlines()) == 1


async def status(greeted: str, sent: str) -> int:
    """What the relay of this greeting says to a key."""
    found = re.search(r"(http://127\.0\.0\.1:\d+)/v1", greeted)
    assert found is not None
    return (await get(found[1], "/v1/models", Authorization=f"Bearer {sent.strip()}")).status


async def test_a_running_relay_knows_keys_at_once_and_a_killed_one_forgets_none(
    tmp_path: Path,
) -> None:
    models = default_models()
    assert models is not None
    options = ("--port", "0", "--no-stun", "--models", str(models), "--state", str(tmp_path))
    async with kwaainet("relay", *options, "--api") as relay:
        text = await greeting(relay)
        assert "reads what is asked there" in text
        _, made, _ = await key(tmp_path, "add", "ada")
        assert await status(text, made) == 200
        relay.kill()
        await relay.wait()
    async with kwaainet("relay", *options, "--api") as relay:
        text = await greeting(relay)
        assert await status(text, made) == 200
        await key(tmp_path, "revoke", "ada")
        assert await status(text, made) == 401


async def test_help_says_that_the_relay_reads_prompts() -> None:
    _, out, _ = await said("relay", "--help")
    told = " ".join(out.replace("│", " ").split())
    assert "Through this door the relay does see prompts and answers" in told

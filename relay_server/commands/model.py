"""`kwaainet model`: bring a checkpoint, look at what is here, plan, check it, remove it."""

from __future__ import annotations

from cyclopts import App

__all__ = ["app"]

app = App(name="model", help="Models on this machine: add, look at, check, plan and remove them.")

for _name in ("add", "split"):
    app.command(f"relay_server.commands.model_{_name}:{_name}")
app.command("relay_server.commands.model_shelf:list_models", name="list")
for _name in ("show", "verify", "remove"):
    app.command(f"relay_server.commands.model_shelf:{_name}")
for _name in ("grant", "revoke", "grants"):
    app.command(f"relay_server.commands.private:{_name}")

"""`auricle models`: which models are offered, what is known of each, and their weights."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table

from auricle.engines.base import ModelInfo, ModelSpec, Whereabouts
from auricle.engines.registry import Catalog, family_names, find_family

_FEW = 6
"""So many languages of a model are listed one by one."""


def show_models(offered: Catalog, out: Console) -> None:
    """List them, and the further names that they go by."""
    directory = offered.directory
    table = Table("model", "languages", "runs on", "weights", box=None)
    is_missing = False
    for model in directory.models:
        spec = offered.specs[model.name]
        where = find_family(spec).whereabouts(spec)
        is_missing |= not where.is_here
        default = " (default)" if model.name == directory.default else ""
        table.add_row(model.name + default, _languages(model), where.device or "?", _weights(where))
    out.print(table)
    out.print()
    for model in directory.models:
        aliases = [name for name in directory.names if directory.find(name) == model and name != model.name]
        if aliases:
            out.print(f"{model.name} is also called {', '.join(aliases)}.", highlight=False)
    if is_missing:
        out.print("Weights are fetched with: auricle models pull MODEL", highlight=False)
    names = ", ".join(f"{name}/" for name in family_names())
    out.print(f"The settings can offer more (see docs/engines.md). Their names begin with {names}.", highlight=False)


def _languages(model: ModelInfo) -> str:
    if len(model.languages) > _FEW:
        return f"{len(model.languages)} languages"
    return ", ".join(model.languages) or "any"


def _weights(where: Whereabouts) -> str:
    if not where.is_here:
        return "not here"
    return decimal(where.size_bytes) if where.size_bytes is not None else where.place or "?"


def pull_weights(spec: ModelSpec, out: Console, err: Console) -> None:
    """Fetch a model's weights to where the server looks for them. Raises EngineError: that can't be done."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(None), DownloadColumn(), TransferSpeedColumn())
    try:
        with Progress(*columns, console=err, transient=True, expand=True, disable=not err.is_terminal) as progress:
            task = progress.add_task(f"Fetching {spec.name}", total=None)

            def show(done: int, total: int) -> None:
                progress.update(task, completed=done, total=total or None)

            # In a thread, so that we hear of Ctrl-C.
            place = ThreadPoolExecutor(1).submit(find_family(spec).fetch, spec, show).result()
    except KeyboardInterrupt:
        # Whoever fetches would bring the file to its end that it is at, which can take an hour, and so would any exit
        # that waits for threads. What is there is gone on with by the next pull.
        os._exit(130)
    out.print(f"{spec.name} is in {place}", markup=False, highlight=False, soft_wrap=True)


def remove_weights(spec: ModelSpec, out: Console) -> None:
    """Delete a model's weights that were fetched. Raises EngineError: there are none."""
    freed_bytes = find_family(spec).remove(spec)
    out.print(f"{spec.name} is removed: {decimal(freed_bytes)} are free again.", markup=False, highlight=False)

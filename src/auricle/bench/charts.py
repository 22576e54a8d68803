"""Pictures of a benchmark: latency distributions, accuracy against delay, latency against sessions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, PercentFormatter

from auricle.bench.latency import MEASURES, Measure
from auricle.bench.options import Options
from auricle.bench.report import CapacityStep, RunReport

_COLOURS = ("#0b6e99", "#d9730d", "#448361", "#9065b0", "#c14c8a", "#787774")
_GRID = "#e3e2df"
_INK = "#37352f"
_PALE = "#787774"
_FLOOR_MS = 1.0
"""Where the logarithmic axis begins."""


def draw(options: Options, runs: Sequence[RunReport], steps: Sequence[CapacityStep], capacity: int | None) -> Figure:
    """The picture that fits: the search's steps, several delays, or one run."""
    is_wide = len(runs) > 1
    figure = Figure(figsize=(12 if is_wide else 8, 5.2), dpi=150, layout="constrained", facecolor="white")
    axes: list[Axes] = list(figure.subplots(1, 2 if is_wide else 1, squeeze=False)[0])
    if steps:
        _draw_capacity(axes[0], options, steps, capacity)
    elif is_wide:
        _draw_delays(axes[0], runs)
        _draw_accuracy(axes[1], runs)
    else:
        _draw_latency(axes[0], runs[0])
    for plot in axes:
        _dress(plot)
    return figure


def _dress(plot: Axes) -> None:
    plot.grid(color=_GRID, linewidth=0.8)
    plot.set_axisbelow(True)
    plot.tick_params(which="both", colors=_PALE, labelsize=9, length=0)
    plot.xaxis.label.set_color(_INK)
    plot.yaxis.label.set_color(_INK)
    plot.title.set_color(_INK)
    for side in ("top", "right", "left"):
        plot.spines[side].set_visible(False)
    plot.spines["bottom"].set_color(_PALE)


def _draw_latency(plot: Axes, run: RunReport) -> None:
    curves = [(MEASURES[name], run.samples_s[name]) for name in run.percentiles]
    _draw_curves(plot, curves)
    sessions = f"{run.sessions} session{'s' if run.sessions > 1 else ''}"
    plot.set_title(f"Latency, {sessions} at a time", loc="left", fontsize=12, fontweight="bold")


def _draw_delays(plot: Axes, runs: Sequence[RunReport]) -> None:
    measure: Measure = "word" if any("word" in run.percentiles for run in runs) else "stop_to_completed"
    curves = [(run.delay or "default", run.samples_s[measure]) for run in runs if measure in run.percentiles]
    _draw_curves(plot, curves)
    plot.set_title(f"{MEASURES[measure].capitalize()}, by delay", loc="left", fontsize=12, fontweight="bold")


def _draw_curves(plot: Axes, curves: Sequence[tuple[str, Sequence[float]]]) -> None:
    """Share of the values that are at most so long; the median is a dot, the 95th percentile a ring."""
    lowest_ms, highest_ms = 100.0, 1000.0
    for (name, values_s), colour in zip(curves, _COLOURS * 2, strict=False):
        values_ms = np.sort(np.maximum(np.array(values_s) * 1000, _FLOOR_MS))
        shares = np.arange(1, values_ms.size + 1) / values_ms.size
        p50, p95 = np.percentile(values_ms, (50, 95))
        label = f"{name}: {p50:.0f}, {p95:.0f} ms"
        plot.step(np.r_[values_ms[0], values_ms], np.r_[0, shares], where="post", color=colour, lw=1.8, label=label)
        plot.plot(p50, 0.5, "o", color=colour, markersize=6)
        plot.plot(p95, 0.95, "o", color=colour, markersize=6, markerfacecolor="white", markeredgewidth=1.6)
        # A single quick value must not squeeze all others.
        lowest_ms = min(lowest_ms, float(np.percentile(values_ms, 1)))
        highest_ms = max(highest_ms, float(values_ms[-1]))
    plot.set_xscale("log")
    plot.set_xlim(lowest_ms / 1.3, highest_ms * 1.3)
    plot.set_ylim(0, 1.02)
    plot.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    plot.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    plot.xaxis.set_minor_formatter(NullFormatter())
    plot.yaxis.set_major_formatter(PercentFormatter(1))
    plot.set_xlabel("milliseconds")
    plot.set_ylabel("share told by then")
    if curves:
        _legend(plot, "p50 (dot), p95 (ring)")


def _legend(plot: Axes, title: str) -> None:
    """Below the plot, where it covers nothing."""
    plot.legend(
        title=title, alignment="left", loc="upper left", bbox_to_anchor=(0, -0.13), ncols=2, frameon=False,
        fontsize=9, title_fontsize=9, borderaxespad=0, handlelength=1.2,
    )  # fmt: skip


def _draw_accuracy(plot: Axes, runs: Sequence[RunReport]) -> None:
    """Word error rate against the median word latency; against the order of the delays where no words are known."""
    scored = [(run, rate) for run in runs if (rate := run.score.percent) is not None]
    words = [run.percentiles.get("word") for run, _ in scored]
    medians = [word.p50 for word in words if word is not None]
    is_timed = len(medians) == len(scored)
    places = medians if is_timed else [float(index) for index in range(len(scored))]
    rates = [rate for _, rate in scored]
    plot.plot(places, rates, color=_PALE, linewidth=1.2, zorder=1)
    for (run, rate), place, colour in zip(scored, places, _COLOURS, strict=False):
        label = f"{run.delay or 'default'}: {rate:.2f} %" + (f", {place:.0f} ms" if is_timed else "")
        plot.plot(place, rate, "o", color=colour, markersize=9, label=label)
    if is_timed:
        plot.set_xlim(0, max(places, default=1) * 1.25)
        plot.set_xlabel("median milliseconds until a word is told")
    else:
        plot.margins(x=0.2)
        plot.set_xticks(places, [run.delay or "default" for run, _ in scored])
    if rates:
        _legend(plot, "word error rate" + (", median" if is_timed else ""))
        room = max((max(rates) - min(rates)) * 0.35, 0.5)
        plot.set_ylim(max(min(rates) - room, 0), max(rates) + room)
    plot.set_ylabel("word error rate, %")
    plot.set_title("Accuracy against delay", loc="left", fontsize=12, fontweight="bold")


def _draw_capacity(plot: Axes, options: Options, steps: Sequence[CapacityStep], capacity: int | None) -> None:
    tried = sorted(
        ((step.run.sessions, step.latency) for step in steps if step.latency is not None), key=lambda pair: pair[0]
    )
    sessions = [count for count, _ in tried]
    for name, colour in (("p50", _COLOURS[0]), ("p95", _COLOURS[1]), ("p99", _COLOURS[3])):
        values = [max(getattr(latency, name), _FLOOR_MS) for _, latency in tried]
        plot.plot(sessions, values, "o-", color=colour, label=name, linewidth=1.8, markersize=5)
    plot.axhline(options.p95_ms, color=_PALE, linestyle="--", linewidth=1.2)
    plot.annotate(
        f"limit for p95: {options.p95_ms:g} ms", (0.01, options.p95_ms), (0, 4), fontsize=9, color=_PALE,
        xycoords=("axes fraction", "data"), textcoords="offset points",
    )  # fmt: skip
    if tried:
        plot.set_xscale("log", base=2)
        plot.set_yscale("log")
        plot.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        for axis in (plot.xaxis, plot.yaxis):
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.set_minor_formatter(NullFormatter())
    plot.set_xlabel("simultaneous sessions in real time")
    plot.set_ylabel(f"{MEASURES[steps[0].measure]}, ms")
    plot.legend(fontsize=9, frameon=False)
    title = f"Carries {capacity} session{'' if capacity == 1 else 's'}" if capacity else "Carries no session"
    plot.set_title(title, loc="left", fontsize=12, fontweight="bold")

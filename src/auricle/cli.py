"""The command line: `auricle serve`, `transcribe`, `listen`, `bench`, `models`, `key`."""

from __future__ import annotations

import asyncio
import math
import secrets
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from pydantic import ValidationError
from pydantic_settings import SettingsError
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from typer.exceptions import TyperException

from auricle import __version__
from auricle.audio.files import audio_duration_s, iter_audio
from auricle.audio.formats import SAMPLE_RATE, AudioFormat, Samples
from auricle.engines.registry import Catalog, catalog, load_engine, turn_judge
from auricle.errors import AuricleError
from auricle.protocol.config import DEFAULT_DELAY, SessionConfig, Transcription
from auricle.settings import Settings

if TYPE_CHECKING:
    from auricle.engines.base import ModelSpec
    from auricle.transcribe_command import Source

app = typer.Typer(
    help="Realtime speech-to-text for clients of OpenAI's Realtime transcription API.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
out = Console()
err = Console(stderr=True)

_CLIENT_EXAMPLE = """\
Auricle listens at {base_url} for clients of OpenAI's Realtime transcription API, such as

  from openai import OpenAI
  with OpenAI(base_url="{base_url}", api_key="{key}").realtime.connect(extra_query={{"intent": "transcription"}}) as c:
      print(c.recv())

Try it in a browser: {root_url}/
The README has a whole program, {root_url}/docs the REST API. Ctrl-C stops the server.
"""


def main() -> None:
    """Run the command line. Expected errors are one line, and the exit code says that there was one."""
    try:
        # Else Typer would put its own errors into a box of many lines.
        status = app(standalone_mode=False)
    except TyperException as error:
        _fail(error, status=2)
    except (AuricleError, ValueError, SettingsError, OSError) as error:
        _fail(error, status=1)
    except (typer.Abort, KeyboardInterrupt):
        sys.exit(130)
    sys.exit(status)


def _fail(error: Exception, status: int) -> NoReturn:
    _tell(_one_line(error))
    sys.exit(status)


def _tell(problem: str) -> None:
    err.print(f"[red]Error:[/red] {escape(problem)}", highlight=False, soft_wrap=True)


def _one_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        return f"{name}: {message}" if name else message
    # Typer's usage errors name the option only in what this method gives.
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    return " ".join(message.split())


@app.callback(invoke_without_command=True)
def _without_command(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    if version:
        out.print(f"auricle {__version__}", highlight=False)
        raise typer.Exit
    if context.invoked_subcommand is None:
        out.print(context.get_help(), highlight=False)


@app.command()
def serve(
    config: Annotated[Path | None, typer.Option(help="TOML file with any of the settings.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on. [default: 127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one. [default: 8000]")] = None,
    api_keys: Annotated[
        str | None, typer.Option("--api-keys", help="Keys that clients may use, separated by commas.")
    ] = None,
    api_keys_file: Annotated[Path | None, typer.Option(help="File with one key a line.")] = None,
    no_auth: Annotated[
        bool | None, typer.Option("--no-auth", help="Take any key, also on an address that others can reach.")
    ] = None,
    allowed_origins: Annotated[
        str | None, typer.Option(help="Origins of web pages that may use the server, separated by commas; * for all.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Model of sessions that name none, and of OpenAI's names.")] = None,
    tls: Annotated[
        str | None,
        typer.Option(metavar="self-signed", help="Speak https with a certificate of the server's making."),
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="Certificate chain, PEM. The server then speaks https.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Private key of the certificate, PEM.")] = None,
    webrtc_host: Annotated[
        str | None, typer.Option(help="Address at which WebRTC clients reach this server, if behind NAT or contained.")
    ] = None,
    webrtc_ports: Annotated[str | None, typer.Option(help="UDP ports of WebRTC calls, such as 50000-50100.")] = None,
    max_session_s: Annotated[
        float | None, typer.Option(help="Longest time that a session may take, in seconds. [default: 3600]")
    ] = None,
    log_json: Annotated[bool | None, typer.Option("--log-json", help="Write the log as JSON.")] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error. [default: info]")] = None,
) -> None:
    """Start the server. Every setting can also be a variable, AURICLE_PORT for example, or stand in a TOML file."""
    flags = {name: value for name, value in locals().items() if value is not None}
    settings = Settings(**flags)
    from auricle.http.app import create_app
    from auricle.http.server import Server, bound_socket
    from auricle.logs import configure_logging

    configure_logging(settings.log_level, as_json=settings.log_json)
    # First of all, so that a port in use is told before anything is loaded.
    with bound_socket(settings.host, settings.port) as bound:
        key = "YOUR_KEY" if settings.all_api_keys else "any"
        server = Server(settings, create_app(settings), on_ready=partial(_print_example, key))
        server.run([bound])
    if not server.started:
        raise typer.Exit(1)


def _print_example(key: str, base_url: str) -> None:
    print(_CLIENT_EXAMPLE.format(base_url=base_url, key=key, root_url=base_url.removesuffix("/v1")), flush=True)


@app.command()
def transcribe(
    recordings: Annotated[
        list[str],
        typer.Argument(help="Files in any format that ffmpeg reads, folders, patterns in quotes, URLs, - for stdin."),
    ],
    format: Annotated[str, typer.Option(help="txt, srt, vtt or json.")] = "txt",
    output: Annotated[
        Path | None, typer.Option(help="Folder for a file of text each. Those that are there are not made again.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Make them again.")] = False,
    words: Annotated[bool, typer.Option("--words", help="With --format json: when each word was said.")] = False,
    jobs: Annotated[int | None, typer.Option(min=1, help="Recordings at a time. [default: one for each core]")] = None,
    model: Annotated[str | None, typer.Option(help="Model to use.")] = None,
    language: Annotated[str | None, typer.Option(help="Language that is spoken, ISO 639-1.")] = None,
    realtime: Annotated[
        str | None, typer.Option(metavar="URL", help="Stream through a running server: its base URL, ending in /v1.")
    ] = None,
    api_key: Annotated[
        str | None, typer.Option(envvar="AURICLE_API_KEY", help="Key for that server.", show_default=False)
    ] = None,
    explain: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Draw what happens in one recording: turns, text, and when.")
    ] = None,
    turn_detection: Annotated[
        str | None, typer.Option(help="For --explain, as for bench; else server_vad:500.")
    ] = None,
    delay: Annotated[str | None, typer.Option(help="For --explain: minimal, low, medium, high or xhigh.")] = None,
) -> None:
    """Turn recordings into text, on standard output or in files of their own."""
    from auricle.transcribe_command import sources_of

    options = Transcription.model_validate({"model": model or "", "language": language, "delay": delay})
    sources = sources_of(recordings)
    if (explain or realtime) and not all(source.is_file for source in sources):
        raise ValueError("--explain and --realtime take files only.")
    if explain:
        if len(sources) > 1 or realtime:
            raise ValueError("--explain takes one recording, and no --realtime.")
        _explain(Path(sources[0].name), explain, options, turn_detection or "server_vad:500")
        return
    if turn_detection or delay:
        raise ValueError("--turn-detection and --delay are for --explain.")
    if realtime:
        if output or format != "txt":
            raise ValueError("--output and --format are not for --realtime: a stream has no times of segments.")
        _through_server([Path(source.name) for source in sources], realtime, api_key, options)
        return
    if not _in_processes(sources, format, output, options, jobs, overwrite=overwrite, words=words):
        raise typer.Exit(1)


def _in_processes(
    sources: Sequence[Source],
    format: str,
    output: Path | None,
    options: Transcription,
    jobs: int | None,
    *,
    overwrite: bool,
    words: bool,
) -> bool:
    """Transcribe recordings in processes of this machine. Returns whether none failed."""
    from auricle.recordings import Recording, RecordingLimits, RecordingTranscriber
    from auricle.transcribe import DEFAULT_TURN_DETECTION
    from auricle.transcribe_command import FORMATS, Texts, transcribe_all
    from auricle.transcript_formats import SUBTITLES

    if format not in FORMATS:
        raise ValueError(f"There is no format '{format}', only {', '.join(FORMATS)}.")
    if words and format != "json":
        raise ValueError("--words is for --format json.")
    settings, models = _local_models(options.model)
    options = models.directory.resolve(options, "transcription")
    if words:
        models.directory.check_word_times(options.model, "--words")
    with_words = words or (format in SUBTITLES and models.directory.has_word_times(options.model))
    texts = Texts(format, output, options.language, words)
    if not overwrite:
        todo = [source for source in sources if not ((path := texts.path(source)) and path.exists())]
        if done := len(sources) - len(todo):
            err.print(f"{done} of {len(sources)} are done already; --overwrite makes them again.", highlight=False)
        sources = todo
    jobs = min(jobs or settings.file_processes, max(len(sources), 1))

    async def run() -> list[str]:
        limits = RecordingLimits(jobs, len(sources), math.inf)
        transcriber = RecordingTranscriber(models, limits)
        try:
            recording = Recording(options, DEFAULT_TURN_DETECTION, with_words)
            return await transcribe_all(transcriber, sources, recording, texts, jobs, out, err)
        finally:
            transcriber.stop()

    problems = asyncio.run(run())
    for problem in problems:
        _tell(problem)
    return not problems


def _local_models(model: str = "") -> tuple[Settings, Catalog]:
    """The settings and their models for a command that doesn't listen, and so needs no key for any address.

    `model` is offered too, if it is one; its weights may be here without any setting.
    """
    settings = Settings(host="127.0.0.1")
    if model and model not in settings.aliases:
        settings = settings.model_copy(update={"models": {model: {}} | settings.models})
    return settings, catalog(settings)


def _explain(file: Path, picture: Path, options: Transcription, turn_detection: str) -> None:
    """Draw the story of a recording, and print its text."""
    from auricle.bench.options import parse_turn_detection
    from auricle.engines.silero import SileroDetector
    from auricle.explain import MAX_STORY_S, check_picture, draw, tell

    check_picture(picture)
    settings, models = _local_models(options.model)
    options = models.directory.resolve(options, "transcription")
    config = SessionConfig.model_validate(
        {"transcription": options, "turn_detection": parse_turn_detection(turn_detection), "turn_detection_given": True}
    )
    models.directory.check_turn_detection(config.turn_detection, "turn_detection")
    spec = models.spec(options.model)
    with _progress(file) as blocks:
        samples = next(blocks(MAX_STORY_S + 1))
    is_cut = samples.size > MAX_STORY_S * SAMPLE_RATE
    engine = load_engine(spec, spec.settings.threads or settings.threads)
    story = tell(samples, config, SileroDetector.embedded(), engine, turn_judge())
    part = f"the first {MAX_STORY_S / 60:g} minutes" if is_cut else f"{story.recording_s:.1f} s"
    settings_told = [part, spec.name, turn_detection, f"delay {options.delay or DEFAULT_DELAY}"]
    draw(story, picture, file.name, " · ".join([*settings_told, "on the audio's clock: computing takes no time"]))
    if is_cut:
        err.print(f"{file.name} is long: {picture.name} shows {part}.", markup=False, highlight=False, soft_wrap=True)
    texts = (turn.transcript for turn in story.turns)
    out.print(" ".join(filter(None, texts)), markup=False, highlight=False, soft_wrap=True)


def _through_server(files: Sequence[Path], base_url: str, api_key: str | None, options: Transcription) -> None:
    """Stream recordings through a server, one after the other, and print their texts."""
    from auricle.client import RealtimeClient, RemoteError

    async def as_async(blocks: Iterator[Samples]) -> AsyncIterator[Samples]:
        for block in blocks:
            yield block

    async def transcripts(blocks: Iterator[Samples]) -> list[str]:
        async with RealtimeClient.connect(base_url, api_key) as client:
            await client.update(
                {
                    "format": {"type": "audio/pcm", "rate": SAMPLE_RATE},
                    "transcription": options.model_dump(exclude_defaults=True),
                    "turn_detection": {"type": "server_vad", "silence_duration_ms": 500},
                }
            )
            texts = []
            async for event in client.stream(as_async(blocks), AudioFormat("audio/pcm", SAMPLE_RATE)):
                match event["type"].rpartition(".")[2]:
                    case "completed":
                        texts.append(event["transcript"])
                    case "failed":
                        raise RemoteError(event["error"]["message"])
            return texts

    for file in files:
        with _progress(file) as blocks:
            texts = asyncio.run(transcripts(blocks(0.1)))
        if len(files) > 1:
            out.print(f"{file}:", style="bold", markup=False, highlight=False, soft_wrap=True)
        out.print(" ".join(filter(None, texts)), markup=False, highlight=False, soft_wrap=True)


@contextmanager
def _progress(file: Path) -> Iterator[Callable[[float], Iterator[Samples]]]:
    """Shows a bar on standard error. Yields a function that reads the file in blocks of so many seconds."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.fields[speed]}"))
    with Progress(*columns, TimeElapsedColumn(), console=err, transient=True) as progress:
        task = progress.add_task(file.name, total=audio_duration_s(file), speed="")

        def blocks(block_s: float) -> Iterator[Samples]:
            for block in iter_audio(file, block_s):
                yield block
                progress.advance(task, block.size / SAMPLE_RATE)
                state = progress.tasks[task]
                if state.elapsed:
                    progress.update(task, speed=f"{state.completed / state.elapsed:.0f}× real time")

        yield blocks


@app.command()
def listen(
    source: Annotated[
        str | None,
        typer.Argument(
            help="Microphone, by its number or a part of its name, or - for a stream on stdin.", metavar="SOURCE"
        ),
    ] = None,
    list_them: Annotated[bool, typer.Option("--list", help="List the microphones.")] = False,
    url: Annotated[str | None, typer.Option(help="Base URL of a server, ending in /v1; else one is started.")] = None,
    api_key: Annotated[
        str | None, typer.Option(envvar="AURICLE_API_KEY", help="Key for the server.", show_default=False)
    ] = None,
    model: Annotated[str | None, typer.Option(help="Model to use.")] = None,
    language: Annotated[str | None, typer.Option(help="Language that is spoken, ISO 639-1.")] = None,
    delay: Annotated[str | None, typer.Option(help="minimal, low, medium, high or xhigh.")] = None,
    turn_detection: Annotated[
        str, typer.Option(help="server_vad[:SILENCE_MS] or semantic_vad[:EAGERNESS].")
    ] = "server_vad:500",
) -> None:
    """Show live captions of a microphone; where the output is no terminal, each turn's text as a line."""
    from auricle.bench.options import parse_turn_detection
    from auricle.listen_command import listen_to, print_microphones

    if list_them:
        print_microphones(out)
        return
    options = Transcription.model_validate({"model": model or "", "language": language, "delay": delay})
    turns = parse_turn_detection(turn_detection)
    if turns is None:
        raise ValueError("listen needs a --turn-detection: nobody would say where an utterance ends.")
    audio_input = {"transcription": options.model_dump(exclude_defaults=True), "turn_detection": turns}
    listen_to(source, url, api_key, audio_input, out, err)


@app.command("bench")
def run_bench(
    audio: Annotated[
        Path | None, typer.Option(help="Folder with manifest.jsonl; else the recording in the model's package.")
    ] = None,
    kind: Annotated[str | None, typer.Option(help="Kinds of recordings, separated by commas; else all.")] = None,
    url: Annotated[str | None, typer.Option(help="Base URL of a server, ending in /v1; else one is started.")] = None,
    api_key: Annotated[
        str | None, typer.Option(envvar="AURICLE_API_KEY", help="Key for the server.", show_default=False)
    ] = None,
    pid: Annotated[int | None, typer.Option(help="Process of the server at --url, to measure its cost.")] = None,
    sessions: Annotated[int, typer.Option(min=1, help="Sessions at a time.")] = 1,
    idle: Annotated[int, typer.Option(min=0, help="Silent sessions beside them.")] = 0,
    speed: Annotated[float, typer.Option(min=0, help="Times the real speed; 0: as fast as it goes.")] = 1.0,
    turn_detection: Annotated[
        str, typer.Option(help="server_vad[:SILENCE_MS], semantic_vad[:EAGERNESS], or none: commit by hand.")
    ] = "server_vad:500",
    format: Annotated[str, typer.Option(help="pcm16, g711_ulaw, g711_alaw, or pcm@RATE.")] = "pcm16",
    delay: Annotated[str | None, typer.Option(help="Delays, separated by commas: one run each.")] = None,
    model: Annotated[str, typer.Option(help="Model to ask for.")] = "gpt-4o-transcribe",
    language: Annotated[str | None, typer.Option(help="Language to ask for, ISO 639-1.")] = None,
    silence: Annotated[
        float | None, typer.Option(min=0, help="Seconds of silence after each recording; else what ends a turn.")
    ] = None,
    chunk_ms: Annotated[float, typer.Option(min=1, max=5000, help="Audio in each event.")] = 100,
    ramp_s: Annotated[float, typer.Option(min=0, help="The first sessions begin evenly over this time.")] = 5.0,
    timeout_s: Annotated[float, typer.Option(min=1, help="Longest wait for something that is to come.")] = 30.0,
    find_capacity: Annotated[bool, typer.Option("--find-capacity", help="Find how many sessions it carries.")] = False,
    p95_ms: Annotated[float, typer.Option(min=1, help="What --find-capacity allows at the end of speech.")] = 400,
    step_s: Annotated[float, typer.Option(min=1, help="Time of each step of --find-capacity.")] = 20.0,
    max_sessions: Annotated[int, typer.Option(min=1, help="Where --find-capacity stops.")] = 1024,
    json: Annotated[Path | None, typer.Option(help="File for all numbers and transcripts.")] = None,
    chart: Annotated[Path | None, typer.Option(help="File for a picture: .png, .svg or .pdf.")] = None,
) -> None:
    """Measure a server's accuracy, latency and capacity, and whether it keeps the protocol's promises."""
    options = dict(locals())
    from auricle.bench import require_extra

    require_extra()
    from auricle.bench.command import bench
    from auricle.bench.options import Options

    if not bench(Options(**options), out, err):
        raise typer.Exit(1)


models_app = typer.Typer()
app.add_typer(models_app, name="models")


@models_app.callback(invoke_without_command=True)
def models(context: typer.Context) -> None:
    """List the models and the further names that they go by; fetch or remove a model's weights."""
    if context.invoked_subcommand is None:
        list_models()


@models_app.command("list")
def list_models() -> None:
    """List the models: what each understands, where it runs, whether its weights are here, and its other names."""
    from auricle.models_command import show_models

    show_models(_local_models()[1], out)


_ModelName = Annotated[str, typer.Argument(help="Its name, such as whisper/small.")]


def _named(name: str) -> ModelSpec:
    if not name:
        raise ValueError("The model's name is empty.")
    return _local_models(name)[1].spec(name)


@models_app.command("pull")
def pull_model(name: _ModelName) -> None:
    """Fetch a model's weights to where the server looks for them."""
    from auricle.models_command import pull_weights

    pull_weights(_named(name), out, err)


@models_app.command("remove")
def remove_model(name: _ModelName) -> None:
    """Delete a model's weights that were fetched. A folder that you have set as its `path` stays."""
    from auricle.models_command import remove_weights

    remove_weights(_named(name), out)


@app.command()
def key() -> None:
    """Make a new API key. Give it to the server in AURICLE_API_KEYS or a file, and to clients as their API key."""
    print(f"sk-auricle-{secrets.token_urlsafe(32)}")

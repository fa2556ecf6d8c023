"""Opens a page in the browser to upload a video or two pictures, preview the result, make it and download it.

    python3 app.py                                     http://127.0.0.1:7860, for this computer alone
    python3 app.py --port 8000 --model train_log DIR   more networks to choose from
    python3 app.py --host 0.0.0.0 --max-upload 500mb   for everyone who can reach this computer

Needs Gradio: python3 -m pip install -r requirements-app.txt. Uploads and results are deleted when the browser tab is
closed, an hour after they were made at the latest, and when the program ends.
"""

import argparse
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import inference_img
from commands.errors import run_command
from commands.page_jobs import make_preview, make_video, video_settings
from model import RIFE
from model.errors import UserError
from model.loading import TRAIN_LOG
from video.reading.container import parse_location
from video.reading.reader import open_frames

LOOPBACK = "127.0.0.1"
CLEANING, OLDEST = 300, 3600  # seconds: between two deletions of old files, and the age of these files
SHOWN = 15  # seconds that an error is shown
MOST_FACTOR, MOST_RATE, MOST_PICTURES = 16, 480, 63
FONTS = ("system-ui", "sans-serif")  # of the system: nothing is loaded from other servers
INTRO = "# Smoother video\nRIFE makes the frames between the frames of a video, or between two pictures."
STYLE = """
.gradio-container {width: 100% !important; max-width: 1100px !important; margin: 0 auto !important}
button {white-space: nowrap}
"""


class Page:
    """Runs the functions of the page, one after the other for all users."""

    def __init__(self, models: list[Path], device: str | None, folder: Path) -> None:
        """Takes the networks; `folder` gets a folder with the results of each browser tab."""
        self.models = {str(path): path for path in models}
        self._device, self._folder = device, folder
        self._loaded: tuple[str, list[RIFE]] = "", []

    def describe(self, video: str | None) -> tuple[str, float]:
        """Returns the size, rate and length of a video as text, and its length in seconds."""
        if video is None:
            return "", 1.0
        try:
            source = open_frames(parse_location(video))
        except UserError as e:
            return str(e).removeprefix(f"{video}: "), 1.0
        width, height = source.size
        length = float(source.count / source.rate) if source.count else 0.0
        return f"{width}x{height}, {float(source.rate):g} frames/s, {length:.1f} s", max(length, 0.1)

    def preview(self, video: str, model: str, second: float) -> tuple[Any, Any]:
        """Returns the frame of a video at a second and the made frame after it."""
        args = video_settings(video, Path("preview.mp4"), *self._flags(model), "--start", f"{second:g}", factor=2,
                              rate=None)  # fmt: skip
        return make_preview(args, self._networks(model))

    def interpolate(
        self, session: str, video: str, model: str, factor: float, rate: float | None
    ) -> Generator[tuple[int, int | None, str, Path | None], None, None]:
        """Makes the video; yields the frames written, of how many, a text, and at last the file."""
        output = self._output(session, f"{Path(video).stem}_{f'{rate:g}fps' if rate else f'{factor:g}X'}.mp4")
        args = video_settings(video, output, *self._flags(model), factor=factor, rate=rate)
        with closing(make_video(args, self._networks(model))) as steps:
            for frames, total, text in steps:
                yield frames, total, text, None
        yield frames, total, text, output

    def interpolate_pair(self, session: str, first: str, second: str, model: str, count: float, form: str) -> Path:
        """Makes the pictures between two pictures as a GIF or a video; returns the file."""
        output = self._output(session, f"{Path(first).stem}_to_{Path(second).stem}.{form.lower()}")
        pictures = output.with_suffix("")
        args = inference_img.build_parser().parse_args(
            ["--img", first, second, "--count", f"{count:g}", f"--{output.suffix[1:]}", str(output), "--fps", "12",
             "--output", str(pictures), "--scale", "auto", *self._flags(model)]
        )  # fmt: skip
        inference_img.run(args)
        shutil.rmtree(pictures)
        return output

    def forget(self, session: str) -> None:
        """Deletes the results of a browser tab."""
        shutil.rmtree(self._folder / session, ignore_errors=True)

    def _output(self, session: str, name: str) -> Path:
        """Returns the path of a result in a new folder."""
        (self._folder / session).mkdir(exist_ok=True)
        return Path(tempfile.mkdtemp(dir=self._folder / session)) / name

    def _flags(self, model: str) -> list[str]:
        device = ["--device", self._device] if self._device else []
        return ["--model", str(self.models[model]), *device]

    def _networks(self, model: str) -> list[RIFE]:
        """Returns the list that holds the network of this name once it is loaded; another network is dropped."""
        if self._loaded[0] != model:
            self._loaded = model, []
        return self._loaded[1]


@contextmanager
def shown_errors(gr: Any) -> Iterator[None]:
    """Shows errors of the user on the page."""
    try:
        yield
    except UserError as e:
        raise gr.Error(str(e), duration=SHOWN, print_exception=False) from e


def build_page(gr: Any, page: Page) -> Any:
    """Returns the page as Gradio's blocks; `gr` is the package."""
    with gr.Blocks(title="Smoother video", delete_cache=(CLEANING, OLDEST), analytics_enabled=False) as blocks:
        gr.Markdown(INTRO)
        names = list(page.models)
        model = gr.Dropdown(names, value=names[0], label="Network", visible=len(names) > 1)
        with gr.Tab("Video"):
            add_video_tab(gr, page, model)
        with gr.Tab("Two pictures"):
            add_pictures_tab(gr, page, model)

        def forget(request: gr.Request) -> None:
            page.forget(str(request.session_hash))

        blocks.unload(forget)
    return blocks


def add_video_tab(gr: Any, page: Page, model: Any) -> None:
    """Adds the tab of videos: upload, settings, preview, result."""
    with gr.Row():
        with gr.Column():
            video = gr.Video(label="Video", sources=["upload"], height=260)
            info = gr.Markdown()
            with gr.Row():
                factor = gr.Number(2, label="Times the frames", minimum=1, maximum=MOST_FACTOR, min_width=120)
                rate = gr.Number(0, label="or frames/s (0: off)", minimum=0, maximum=MOST_RATE, min_width=120)
            second = gr.Slider(0, 1, 0, step=0.1, label="Preview at second")
            with gr.Row():
                preview_button = gr.Button("Preview", min_width=90)
                start = gr.Button("Make video", variant="primary", min_width=140)
                cancel = gr.Button("Cancel", variant="stop", min_width=90, interactive=False)
        with gr.Column():
            pair = gr.ImageSlider(label="Original | new frame", format="png", interactive=False)
            status = gr.Textbox(label="Progress", lines=2, interactive=False)
            result = gr.Video(label="Result", interactive=False, height=260)
            download = gr.DownloadButton("Download", interactive=False)

    def describe(video: str | None) -> tuple[str, Any]:
        text, length = page.describe(video)
        return text, gr.Slider(maximum=round(length, 1), value=0)

    def preview(video: str | None, model: str, second: float) -> tuple[Any, Any]:
        with shown_errors(gr):
            return page.preview(_given(video), model, second)

    def make(
        video: str | None, model: str, factor: float, rate: float | None, request: gr.Request,
        progress: Any = gr.Progress(),  # noqa: B008 - Gradio finds it as the default of an argument
    ) -> Iterator[Any]:  # fmt: skip
        idle = gr.DownloadButton(interactive=False)
        yield "Begins", None, idle, gr.Button(interactive=True)
        with shown_errors(gr):
            session = str(request.session_hash)
            for frames, total, text, file in page.interpolate(session, _given(video), model, factor, rate):
                progress((frames, total), desc=text, unit="frames")
                if file is None:
                    yield text, None, idle, gr.Button(interactive=True)
        yield text, str(file), gr.DownloadButton(value=str(file), interactive=True), gr.Button(interactive=False)

    outputs = [status, result, download, cancel]
    video.change(describe, video, [info, second])
    preview_button.click(preview, [video, model, second], pair, concurrency_id="network")
    job = start.click(make, [video, model, factor, rate], outputs, concurrency_id="network", show_progress_on=status)
    job.failure(lambda: ("Not finished", gr.Button(interactive=False)), None, [status, cancel])
    cancel.click(lambda: ("Not finished", gr.Button(interactive=False)), None, [status, cancel], cancels=[job])


def add_pictures_tab(gr: Any, page: Page, model: Any) -> None:
    """Adds the tab of two pictures: upload, settings, result."""
    with gr.Row():
        first, second = (
            gr.Image(label=label, type="filepath", image_mode=None, sources=["upload"], height=260, min_width=200)
            for label in ("First picture", "Second picture")
        )
    with gr.Row():
        count = gr.Slider(1, MOST_PICTURES, 15, step=1, label="Pictures between")
        form = gr.Radio(["GIF", "MP4"], value="GIF", label="As")
    start = gr.Button("Make pictures", variant="primary")
    shown = gr.Image(label="Result", interactive=False, visible=False, buttons=["download", "fullscreen"])
    played = gr.Video(label="Result", interactive=False, visible=False, height=400, loop=True, autoplay=True)
    download = gr.DownloadButton("Download", interactive=False)

    def make(
        first: str | None, second: str | None, model: str, count: float, form: str, request: gr.Request,
        progress: Any = gr.Progress(track_tqdm=True),  # noqa: B008 - as above
    ) -> tuple[Any, ...]:  # fmt: skip
        with shown_errors(gr):
            file = str(page.interpolate_pair(str(request.session_hash), _given(first), _given(second), model, count,
                                             form))  # fmt: skip
        moving = form == "GIF"
        return (
            gr.Image(file if moving else None, visible=moving),
            gr.Video(None if moving else file, visible=not moving),
            gr.DownloadButton(value=file, interactive=True),
        )

    start.click(make, [first, second, model, count, form], [shown, played, download], concurrency_id="network",
                show_progress_on=start)  # fmt: skip


def _given(file: str | None) -> str:
    """Returns the path of an upload. Raises UserError if there is none."""
    if file is None:
        raise UserError("there is no file yet: drop one first")
    return file


def build_parser() -> argparse.ArgumentParser:
    """Returns the parser of the flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--host", default=LOOPBACK, help=f"address to listen on (default: {LOOPBACK}, this computer alone)")
    add("--port", type=int, default=7860, help="port to listen on (default: 7860)")
    add("--max-upload", default="2gb", metavar="SIZE", help="largest upload, as 500mb (default: 2gb)")
    add("--model", type=Path, nargs="+", default=[TRAIN_LOG], help="folders or files of weights (default: train_log)")
    add("--device", help="cuda, cuda:1, mps or cpu (default: the best there is)")
    return parser


def run(args: argparse.Namespace) -> int:
    """Serves the page until Ctrl-C or SIGTERM; deletes all files at the end."""
    with tempfile.TemporaryDirectory(prefix="rife-app-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = str(Path(folder) / "uploads")
        results = Path(folder) / "results"
        results.mkdir()
        try:
            import gradio as gr
        except ImportError as e:
            raise UserError(f"the page needs Gradio ({e}): python3 -m pip install -r requirements-app.txt") from e
        blocks = build_page(gr, Page(args.model, args.device, results))
        theme = gr.themes.Default(font=FONTS, font_mono=("ui-monospace", "monospace"))
        try:
            _, address, _ = blocks.launch(
                server_name=args.host, server_port=args.port, max_file_size=args.max_upload, share=False, quiet=True,
                prevent_thread_lock=True, ssr_mode=False, footer_links=[], theme=theme, css=STYLE,
            )  # fmt: skip
        except OSError as e:
            raise UserError(f"port {args.port} of {args.host}: cannot be used ({e}); choose another port") from e
        print(f"{address} (Ctrl-C ends)", flush=True)
        if args.host not in (LOOPBACK, "localhost", "::1"):
            print("Everyone who can reach this computer can use the page", flush=True)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        blocks.block_thread()
    return 0


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    args = build_parser().parse_args(argv)
    return run_command("app.py", lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())

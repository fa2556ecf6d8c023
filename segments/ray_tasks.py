"""Makes segments as tasks of a Ray cluster: one GPU or some cores each; a task is repeated if its node dies."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from model.errors import UserError
from segments.excerpt import Excerpt
from segments.folder import WorkFolder
from segments.plan import Plan

RETRIES = 3  # of a task whose process or node dies
PAUSE = 5.0  # seconds between two reports of the progress at most
MOST_CORES = 4  # of a task without a GPU
LEFT_OUT = (".git", ".venv", "tests", "docs", "demo", "benchmark", "*.mp4", "*.mkv", "runs")  # of the project


class TaskResult(NamedTuple):
    """Holds the result of a task: the files of its segment by name, none if they are in the shared folder already."""

    files: dict[str, bytes]
    frames: int
    made: int  # of them by the network
    needs_excerpt: bool = False  # nothing was made: the node does not have the shared folder


@dataclass(frozen=True)
class Supplies:
    """Holds what a node without the shared folder needs: its part of the source, and other files by name."""

    excerpt: Excerpt
    weights: str  # name of their file
    files: dict[str, bytes]


# Makes one segment in a folder: (settings, its number, the folder, supplies or None) -> frames, frames by the network.
MakeOne = Callable[[Any, int, WorkFolder, Path | None, Supplies | None], tuple[int, int]]


def run_on_ray(
    address: str,
    settings: Any,
    make_one: MakeOne,
    folder: WorkFolder,
    plan: Plan,
    supplies: Callable[[int], Supplies],
    count: Callable[[int, int], None],
) -> int:
    """Makes all missing segments on the nodes of a cluster; returns how many came from nodes without the folder.

    `count` gets the frames and the made frames of each segment, and zeros meanwhile. `supplies` returns what a node
    without the shared folder needs for a segment. Raises UserError if Ray is missing, if there is no cluster at the
    address, or if a task fails.
    """
    ray = _connect(address)
    returned = 0
    try:
        task = ray.remote(_make_remotely).options(**_share(ray))
        shared = ray.put((settings, make_one, plan))
        waiting = iter(folder.missing(plan))
        running: dict[Any, int] = {}
        for index in _next(waiting, _slots(ray)):
            running[task.remote(shared, index, str(folder.path), folder.suffix, None)] = index
        while running:
            done, _ = ray.wait(list(running), num_returns=1, timeout=PAUSE)
            if not done:
                count(0, 0)
                continue
            index = running.pop(done[0])
            made = _result(ray, done[0], folder, index)
            if made.needs_excerpt:
                needed = ray.put(supplies(index))
                running[task.remote(shared, index, str(folder.path), folder.suffix, needed)] = index
                continue
            folder.adopt(index, made.files)
            returned += bool(made.files)
            count(made.frames, made.made)
            for following in _next(waiting, 1):
                running[task.remote(shared, following, str(folder.path), folder.suffix, None)] = following
    finally:
        ray.shutdown()
    return returned


def _connect(address: str) -> Any:
    try:
        import ray
    except ImportError as e:
        raise UserError("Ray is not installed; pip install ray, on every machine of the cluster") from e
    root = Path(__file__).resolve().parents[1]
    environment = {"working_dir": str(root), "excludes": list(LEFT_OUT)}
    try:
        ray.init(address=address, runtime_env=environment, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, ValueError, RuntimeError) as e:
        reason = str(e).splitlines()[0]
        raise UserError(f"{address}: no Ray cluster ({reason}); start one by ray start --head") from e
    return ray


def _share(ray: Any) -> dict[str, Any]:
    """Returns what one task gets: a GPU where there are any, otherwise cores."""
    common = {"max_retries": RETRIES, "scheduling_strategy": "SPREAD"}
    if ray.cluster_resources().get("GPU", 0) >= 1:
        return {"num_gpus": 1, **common}
    return {"num_cpus": _cores(ray), **common}


def _cores(ray: Any) -> int:
    """Returns the cores of a task: those of the smallest node, MOST_CORES at most."""
    smallest = min(int(node["Resources"].get("CPU", 1)) for node in ray.nodes() if node["Alive"])
    return max(min(smallest, MOST_CORES), 1)


def _slots(ray: Any) -> int:
    """Returns how many tasks are started at once: twice as many as run, so that none waits for the next."""
    resources = ray.cluster_resources()
    running = int(resources.get("GPU", 0)) or int(resources.get("CPU", 1)) // _cores(ray)
    return 2 * max(running, 1)


def _next(waiting: Iterator[int], number: int) -> Iterator[int]:
    for _, index in zip(range(number), waiting, strict=False):
        yield index


def _result(ray: Any, task: Any, folder: WorkFolder, index: int) -> TaskResult:
    try:
        made: TaskResult = ray.get(task)
    except ray.exceptions.RayTaskError as e:
        if isinstance(e.cause, UserError):
            raise UserError(str(e.cause)) from e
        raise
    except ray.exceptions.RayError as e:
        reason = str(e).splitlines()[0]
        raise UserError(f"{folder.path}: segment {index} was lost {RETRIES + 1} times ({reason})") from e
    return made


def _make_remotely(
    shared: tuple[Any, MakeOne, Plan], index: int, path: str, suffix: str, supplies: Supplies | None
) -> TaskResult:
    """Runs on a node: makes a segment in the shared folder, or in a folder of its own from its supplies."""
    settings, make_one, plan = shared
    folder = WorkFolder(Path(path), suffix)
    if supplies is None:
        if not (folder.plan_file.is_file() and Plan.read(folder.plan_file) == plan):
            return TaskResult({}, 0, 0, needs_excerpt=True)
        with closing(folder):
            return TaskResult({}, *make_one(settings, index, folder, None, None))
    place = Path(tempfile.mkdtemp(prefix="rife_"))
    try:
        own = WorkFolder(place / "work", suffix)
        own.path.mkdir()
        own.plan_file.write_bytes(plan.to_json())
        with closing(own):
            frames, made = make_one(settings, index, own, place, supplies)
            return TaskResult(own.files_of(index), frames, made)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def write_supplies(supplies: Supplies, place: Path) -> Path:
    """Writes supplies to a folder; returns the file with the part of the source."""
    for name, data in supplies.files.items():
        (place / name).write_bytes(data)
    file = place / f"source{supplies.excerpt.suffix}"
    file.write_bytes(supplies.excerpt.data)
    return file

"""Defines the base class of the writers of frames: videos and numbered pictures."""

from abc import ABC, abstractmethod
from types import TracebackType
from typing import TypeVar

from video.frame import Frame

Writer = TypeVar("Writer", bound="FrameWriter")


class FrameWriter(ABC):
    """Writes frames one after the other; in a `with` block it is finished at the end, and stopped by an error."""

    @abstractmethod
    def write(self, frame: Frame) -> None:
        """Writes one frame."""

    @abstractmethod
    def finish(self) -> None:
        """Completes the output."""

    @abstractmethod
    def stop(self) -> None:
        """Ends the output after an interruption or an error."""

    def __enter__(self: Writer) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self.finish()
        else:
            self.stop()

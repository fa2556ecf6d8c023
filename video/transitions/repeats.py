"""Replaces repeated frames, as upstream does: the network's frame in the middle of the frames around a repeat."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction

from video.devices import InputFrame, NetworkRun
from video.frame import Frame
from video.transitions.hold import MIDDLE
from video.transitions.overlay import hide, put_back
from video.transitions.retime import LONGEST_RUN
from video.transitions.scene import HELD, Transition, TransitionDetector


@dataclass(frozen=True)
class RepeatReplacement:
    """Replaces repeated frames. `load` makes an input of a frame; `count` is called for each replaced frame.

    The transitions are those of the frames unless `by_shown`: then the frame after a replaced one is compared with the
    frame that is shown, as upstream does.
    """

    network: NetworkRun
    detector: TransitionDetector
    load: Callable[[Frame], InputFrame]
    count: Callable[[Fraction], None]
    by_shown: bool = False

    def replace(self, frames: Iterable[InputFrame]) -> Iterator[InputFrame]:
        """Yields the frames; a repeat becomes the midpoint of the frames around it.

        upstream: also replaces a repeat just before a cut, by a midpoint across that cut, which is a ghost of both
        scenes; here that repeat is kept. A repeat in a scene that stands still is kept too, and so is, unless
        `by_shown`, the last of more than LONGEST_RUN equal frames: a screen or a slide that begins to change.
        """
        source = iter(frames)
        first = next(source, None)
        if first is None:
            return
        yield first
        second = next(source, None)
        run = 1  # frames up to `second` that show one picture
        while second is not None:
            third = next(source, None)
            shown = second
            run = run + 1 if second.transition is Transition.REPEAT else 1
            is_still = run > LONGEST_RUN and not self.by_shown
            if third is not None and not is_still and self._is_replaced(first, second, third):
                shown = self._midpoint(first, second.frame.time, third)
                if self.by_shown:
                    third.transition = self._classify(shown, third)
            yield shown
            first, second = shown, third

    def _is_replaced(self, first: InputFrame, second: InputFrame, third: InputFrame) -> bool:
        """Returns whether the second of three frames repeats the first while the scene moves."""
        if second.transition is not Transition.REPEAT or third.transition in HELD:
            return False
        across = self._classify(first, third)
        return across is Transition.MOTION or (across is Transition.REPEAT and self.detector.repeats == "upstream")

    def _classify(self, first: InputFrame, second: InputFrame) -> Transition:
        return self.detector.classify(self.detector.compare(first.signature, second.signature))

    def _midpoint(self, first: InputFrame, time: Fraction, third: InputFrame) -> InputFrame:
        """Returns the network's frame in the middle of two frames, to be shown at a given time."""
        (picture,) = self.network(first, third, [MIDDLE])
        self.count(time)
        whole = put_back(picture, first, third, MIDDLE)()
        return hide(self.load(Frame(whole, time, first.frame.colour)), first.keep)

"""Moves the packets of one stream to the clock of the output: it starts at 0, and its times rise."""

from fractions import Fraction

from av.packet import Packet

from video.losses import TrackLosses

# What encoders of sound need before the start: more was cut away by an edit list.
PRIMING, PRIMING_PACKETS = Fraction(1, 10), 3  # seconds, and packets where these are longer
LARGEST_STEP_BACK = Fraction(1, 4)  # seconds; time stamps that step back further have started again


def is_priming(first: Fraction, duration: Fraction) -> bool:
    """Returns whether sound before the start is what its decoder needs, not what an edit list has cut away.

    `first` is the time in seconds of the track's first packet after the start, negative before it; `duration` that of a
    packet.
    """
    return first >= -max(PRIMING, PRIMING_PACKETS * duration)


class PacketClock:
    """Gives the packets of one stream times that rise.

    A single stamp that does not fit is replaced by one between its neighbours'; this needs `hold`: each packet is held
    back until the next one is known. After a restart (joined recordings) later packets are moved by the same time as
    the frames of the video: `shifts` holds the seconds after each restart, as far as the video has been read. Packets
    that would play at the same time as those before them are left out and counted in `losses`.
    """

    def __init__(self, start: Fraction, shifts: list[Fraction], losses: TrackLosses, *, hold: bool) -> None:
        """Starts the clock: `start`, in seconds on the clock of the source, is 0 in the output."""
        self._start, self._shifts, self._losses, self._hold = start, shifts, losses, hold
        self._held: Packet | None = None
        self._shift = Fraction(0)  # seconds
        self._restarts = 0
        self._stamp: int | None = None  # dts of the packet before, as the source has it
        self._first: Fraction | None = None  # seconds, pts of the first packet on the clock of the output
        self._last: int | None = None  # dts on the clock of the output, in units of the stream's time base

    def place(self, packet: Packet | None) -> Packet | None:
        """Returns the packet that is ready, with its new times; None gives the packet that is held back, if any.

        Packets that an edit list has cut away are left out.
        """
        if packet is not None and packet.dts is None:
            packet.dts = packet.pts
        if packet is not None and self._is_cut_away(packet):
            return None
        if not self._hold:
            return packet and self._placed(packet, None)
        held, self._held = self._held, packet
        return held and self._placed(held, packet)

    def _is_cut_away(self, packet: Packet) -> bool:
        """Returns whether a packet plays before the start in a file that was trimmed by an edit list."""
        if packet.pts is None or not packet.time_base:
            return False
        time = packet.pts * packet.time_base - self._start
        self._first = time if self._first is None else self._first
        duration = (packet.duration or 0) * packet.time_base
        return packet.is_discard and not is_priming(self._first, duration) and time + duration <= 0

    def _placed(self, packet: Packet, following: Packet | None) -> Packet | None:
        base = packet.time_base or Fraction(1)
        offset = round((self._shift - self._start) / base)
        stamp = packet.dts
        dts = (self._last or 0) + 1 if stamp is None else stamp + offset
        step_back = 0 if stamp is None or self._stamp is None else self._stamp - stamp
        if self._last is not None and step_back * base > LARGEST_STEP_BACK:
            dts += self._restart(self._last - dts + (packet.duration or 1), base)
        self._stamp = stamp
        if self._last is not None and dts <= self._last:
            if self._last - dts > (packet.duration or 0) // 2:
                self._losses.add("they overlap with those before them")
                return None
            dts = self._last + 1
        elif self._last is not None and following is not None and following.dts is not None:
            after = following.dts + offset
            if self._last < after < dts:
                replaced, dts = dts, max((self._last + after) // 2, self._last + 1)
                self._stamp = stamp and stamp + dts - replaced  # the next stamp is no step back from a wrong one
        packet.pts = dts if packet.pts is None or stamp is None else packet.pts + dts - stamp
        packet.dts = self._last = dts
        return packet

    def _restart(self, step_back: int, base: Fraction) -> int:
        """Moves the clock by a step back or, if it is known, as the video's; returns by how many units of `base`."""
        before = self._shift
        self._restarts += 1
        known = len(self._shifts) >= self._restarts
        self._shift = self._shifts[self._restarts - 1] if known else before + step_back * base
        return round((self._shift - before) / base)

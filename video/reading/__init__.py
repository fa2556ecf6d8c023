"""Reads frames with their exact times: containers, decoders, clocks, spans of the source."""

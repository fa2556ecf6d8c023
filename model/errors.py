"""What a user can mend: scripts print such an error as one line and exit with a status other than 0."""


class UserError(ValueError):
    """The message names the file or the setting, the cause and the remedy."""


class WeightsError(UserError):
    """Weights that cannot be used. Whatever names a damaged file holds, the message is one printable line."""

    def __init__(self, message: str) -> None:
        super().__init__("".join(c if c.isprintable() else "?" for c in message))

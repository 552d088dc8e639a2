"""The two ways in which a measurement refuses: wrong input, and a sum that does not add up."""


class InputError(ValueError):
    """Input that cannot be measured; the message is one line with what, its value and the remedy."""


class ExactnessError(ArithmeticError):
    """A conservation law or decomposition is off by more than its bound; the message says which."""


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type: what fits into a message of ours."""
    text = str(error).strip().splitlines()
    return text[0][:200] if text else type(error).__name__

"""What a broken rule is."""


class Violation(BaseException):
    """A rule that nothing may break was broken. No `except Exception` of the daemon may swallow it."""


def require(condition: object, *words: object) -> None:
    if not condition:
        raise Violation(" ".join(str(word) for word in words))

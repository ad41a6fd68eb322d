"""The one error that data handling raises for something the user can put right."""


class DataError(ValueError):
    """Data, or a request for data, that cannot be used as it is.

    The message is one sentence that names the thing, the value met and what is allowed, so
    that a command line can print it alone.
    """

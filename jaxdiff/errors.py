"""The one error that is the user's to mend."""


class UserError(Exception):
    """Something a user asked for cannot be done.

    The message is one sentence: what is wrong, where, and what to do about it. The
    command line prints it on standard error and exits with code 2; from Python it is
    an ordinary exception.
    """

"""The other project that is called xopt: its distribution ``xopt`` and ``array-xopt`` install into one folder."""


def namesake() -> str | None:
    """What to do where it is installed beside this one; None where it is not."""
    from importlib.metadata import PackageNotFoundError, version  # takes a third of the time until ``main`` can be interrupted

    try:
        found = version("xopt")
    except PackageNotFoundError:
        return None
    return (
        f"the distribution xopt {found}, another project, is installed too, and both write into one folder, xopt, so that "
        "neither is whole; uninstall xopt and array-xopt, and install the one that is meant, or each in an environment of its own"
    )

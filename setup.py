"""What pyproject.toml cannot say: an editable install that type checkers and editors can follow.

They find a package by its folders and run no import hook, such as setuptools would install for packages whose folders are not
nested as the packages are. Two links nest them, ``xopt/backends`` and ``xopt/conformance``, and a ``.pth`` file then leads here.
Links to folders, and no copies: a new file is found as soon as it is there. Where links cannot be made, as on Windows without its
developer mode, the install is setuptools' own: it runs, but its types are not found.
"""

from pathlib import Path

from setuptools import setup
from setuptools.command.editable_wheel import editable_wheel

ROOT = Path(__file__).parent


class LinkedEditableWheel(editable_wheel):
    """With the layout of the packages as links, so that setuptools sees no need of an import hook."""

    def finalize_options(self) -> None:
        super().finalize_options()
        try:
            for folder in ("backends", "conformance"):
                link(ROOT / "xopt" / folder, Path("..", folder))
        except OSError as error:
            self.warn(f"type checkers will not find xopt: {error}")
        else:
            self.package_dir = {"": "."}


def link(path: Path, target: Path) -> None:
    if path.is_symlink():
        path.unlink()
    path.symlink_to(target, target_is_directory=True)


setup(cmdclass={"editable_wheel": LinkedEditableWheel})

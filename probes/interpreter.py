"""Finds the Python that runs this process, where it can be started again.

``sys.executable`` is not always Python. In a frozen application (PyInstaller, cx_Freeze, Nuitka) and in a program that
embeds Python (Blender, QGIS, uWSGI) it is that program, and starting it as if it were Python starts the program again,
which starts it again.
"""

from __future__ import annotations

import os
import re
import sys

NO_PYTHON = "this program contains Python (it is frozen, or embeds it), so Python cannot be started as another process"
_NAME = re.compile(r"(python|pypy|graalpy)[\w.+-]*")  # "python3.12", "pythonw.exe", "python3-dbg"


def python_program() -> str | None:
    """Path of the Python that runs this process; None if it cannot be started."""
    main = sys.modules.get("__main__")
    if getattr(sys, "frozen", False) or hasattr(sys, "_MEIPASS") or hasattr(main, "__compiled__"):
        return None
    name = os.path.basename(sys.executable or "").lower()
    return sys.executable if _NAME.fullmatch(name) else None

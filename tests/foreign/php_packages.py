"""The PHP package as a project has it that Composer has installed."""

from pathlib import Path

from tests.docs import ROOT

CLIENT = ROOT / "clients/php"


def autoload(folder: Path) -> None:
    """Write the autoloader that Composer would write, which takes Composer a second."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "autoload.php").write_text(
        f"""<?php
spl_autoload_register(function ($class) {{
    if (strpos($class, 'Wxauth\\\\') === 0) {{
        require '{CLIENT}/src/' . str_replace('\\\\', '/', substr($class, 7)) . '.php';
    }}
}});
"""
    )

"""The command `wxauth`, also where only the guard is installed: then it says what is missing."""

import gc
import signal
import sys


def main() -> None:
    """Run the command."""
    if sys.argv[1:2] == ["serve"] and sys.platform != "win32":
        # Otherwise one that comes during the imports, which take a second, would end the service. `Workers` heed it.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    gc.set_threshold(50_000)  # what is imported stays: looking through it took an eighth of a command's start
    try:
        from wxauth.server.cli import main as run

        run(prog_name="wxauth")
    except ModuleNotFoundError as exc:
        package = (exc.name or "wxauth").partition(".")[0]
        if package == "wxauth":
            raise
        extra = "dev" if sys.argv[1:2] == ["dev"] else "server"
        sys.exit(f'{package} is not installed: pip install "wxauth[{extra}]". 未安装 {package}，请运行上述命令。')
    except Exception as exc:
        from wxauth.server.core.logs import lines_of

        sys.exit("\n".join(lines_of(exc)))  # Python's own traceback would quote what PostgreSQL says of a row


if __name__ == "__main__":
    main()

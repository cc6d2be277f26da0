"""`dataengine` and `python -m apps`: run one verb; an input's fault is one sentence and exit code 2, no traceback."""

import os
import sys


def main() -> None:
    """Console entry point."""
    # Nothing here may reach for a hub at run time but the verbs that are asked to, and MuJoCo must render without a
    # display.
    if sys.argv[1:2] not in (["push"], ["pull"]):
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("MUJOCO_GL", "egl")
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Idle OpenMP threads that spin take a core from Ray's workers: a training step took 6.1 s with them, 1.4 s without.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from apps.cli.main import app
    from schemas.errors import EngineError

    try:
        app()
    except EngineError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        sys.exit(2)
    except OSError as error:
        # The disk, the network or the user's paths: theirs to mend, so a sentence and no traceback.
        where = f" ({error.filename})" if error.filename else ""
        sys.stderr.write(
            f"{type(error).__name__}: {error.strerror or error}{where}. Nothing that was finished is lost.\n"
        )
        sys.exit(2)
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted. What is finished is kept; run the same command again to go on.\n")
        sys.exit(130)


if __name__ == "__main__":
    main()

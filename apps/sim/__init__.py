"""The simulated tabletop: a MuJoCo stand-in for a lab's bimanual robot, its cameras and its teleoperators."""

import os
import sys

# MuJoCo picks its graphics library when it is first imported; without a display only EGL draws.
if sys.platform == "linux":
    os.environ.setdefault("MUJOCO_GL", "egl")

"""Robot files: the MJCF or URDF that a rig names, reduced to what forward kinematics needs, and followed.

MuJoCo reads both formats. Shapes, meshes, motors and sensors are left away before it compiles, so a file works without
the pictures and meshes that belong to it. What is left (bodies, joints, tools, with all numbers as MuJoCo has them) is
written as a small MJCF into the rig, and travels with every dataset made with it. This is the one module of the engine
that imports MuJoCo.
"""

import hashlib
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import mujoco
import numpy as np
from numpy.typing import NDArray

from schemas.errors import RigError, did_you_mean
from schemas.rigs import Arm, Rig

_WORLD = "world"
_MOST_BYTES = 16 << 20  # of a robot file: the largest published humanoids have 0.2 MB
_SCALAR = {int(mujoco.mjtJoint.mjJNT_HINGE): "hinge", int(mujoco.mjtJoint.mjJNT_SLIDE): "slide"}
# Kinds of elements that move nothing, in an order in which nothing that is left names something that is gone.
_IDLE = (
    *("keys", "sensors", "actuators", "tendons", "equalities", "excludes", "pairs", "tuples", "skins", "flexes"),
    *("geoms", "cameras", "lights", "meshes", "hfields", "materials", "textures", "numerics", "texts"),
)


def with_chain(rig: Rig, folder: Path, shipped: Path) -> Rig:
    """The rig with the hash and the chain of the robot file it names, found from `folder` or among the `shipped` ones.

    Raises RigError for a file that is missing or can not be read, and for a joint, tool or frame it does not have; and
    for what a whole rig must have, while a dataset may lack an optional feature and what leans on it.
    """
    said = rig.kinematics
    for arm in rig.arms:
        if arm.position is not None and arm.position.feature not in rig.features:
            raise RigError(
                f"rig '{rig.name}': the position of '{arm.name}' reads feature '{arm.position.feature}', which the rig "
                "does not declare. Add it, or name another."
            )
    if said is None or said.file is None or said.chain is not None:
        return rig
    path = folder / Path(said.file).expanduser()
    if not path.exists() and (shipped / said.file).is_file():  # of a shipped rig that was copied and changed
        path = shipped / said.file
    content = _content(path, rig.name)
    robot = _Robot.read(path)
    arms = [arm for arm in rig.arms if arm.joints]
    if not arms:
        raise RigError(f"rig '{rig.name}' names the robot file {said.file}, but no arm has joints and a tool in it.")
    for arm in arms:
        robot.check(arm)
    frame = robot.frame(said.frame)
    chain = robot.chain([*(arm.tool or "" for arm in arms), *([] if frame == _WORLD else [frame])])
    found = said.model_copy(
        update={
            "frame": None if frame == _WORLD else frame,
            "sha256": hashlib.sha256(content).hexdigest(),
            "chain": chain,
        }
    )
    return rig.model_copy(update={"kinematics": found})


def tool_positions_m(rig: Rig, arm: Arm, joints: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where the tool of `arm` is for every row of its joints, (T, J) -> (T, 3), in the frame of the rig's kinematics.

    Joints that the arm does not name stand where the file has them at rest.
    """
    said = rig.kinematics
    if said is None or said.chain is None:
        raise RigError(f"rig '{rig.name}' holds no chain of its robot file. Load it from its YAML, beside that file.")
    model = _compiled(said.chain)
    data = mujoco.MjData(model)
    places = [int(model.jnt_qposadr[model.joint(name).id]) for name in arm.joints]
    tool = model.site(f"tool:{arm.tool}").id
    frame = model.site(f"tool:{said.frame}").id if said.frame else None
    found = np.empty((len(joints), 3))
    for row, angles in zip(found, joints, strict=True):
        data.qpos[places] = angles
        mujoco.mj_kinematics(model, data)
        row[:] = data.site_xpos[tool]
        if frame is not None:
            row[:] = data.site_xmat[frame].reshape(3, 3).T @ (row - data.site_xpos[frame])
    return found


def _content(path: Path, rig: str) -> bytes:
    if not path.is_file():
        raise RigError(
            f"rig '{rig}' names the robot file {path}, which is not there. Put the MJCF or URDF beside the rig file, "
            "or correct kinematics.file."
        )
    if path.stat().st_size > _MOST_BYTES:
        raise RigError(f"the robot file {path} has {path.stat().st_size >> 20} MB; name the MJCF or URDF itself.")
    return path.read_bytes()


def _compiled(xml: str) -> "mujoco.MjModel":
    try:
        return mujoco.MjModel.from_xml_string(xml)
    except ValueError as error:
        raise RigError(f"the chain in the rig is not MJCF ({_one_line(error)}). Load the rig from its file.") from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Robot:
    """A robot file as MuJoCo understands it, without anything that is only seen, felt or driven."""

    name: str  # of the file
    model: "mujoco.MjModel"
    root: str | None  # of a URDF: the link that MuJoCo takes for the world

    @classmethod
    def read(cls, path: Path) -> "_Robot":
        try:
            root = _urdf_root(path)
            spec = mujoco.MjSpec.from_file(str(path))
            for kind in _IDLE:
                for element in list(getattr(spec, kind)):
                    spec.delete(element)
            for body in spec.bodies[1:]:  # without shapes they would weigh nothing, which MuJoCo refuses
                body.mass, body.inertia, body.explicitinertial = 1.0, (1.0, 1.0, 1.0), True
            spec.compiler.fusestatic = False  # a tool is often a link that is fixed to the last one
            model = spec.compile()
        except (ValueError, ET.ParseError, UnicodeDecodeError) as error:
            raise RigError(
                f"the robot file {path.name} can not be read as MJCF or URDF ({_one_line(error)}). Correct it."
            ) from None
        return cls(name=path.name, model=model, root=root)

    def check(self, arm: Arm) -> None:
        """Raises RigError unless the arm's joints are this robot's and lead to its tool."""
        joints = self._names("joint")
        for name in arm.joints:
            if name not in joints:
                raise RigError(f"{self.name} has no joint '{name}' (arm '{arm.name}'). {did_you_mean(name, joints)}")
            if int(self.model.jnt_type[self.model.joint(name).id]) not in _SCALAR:
                raise RigError(f"joint '{name}' of {self.name} is neither a hinge nor a slide. Name others.")
        path = self._path(self.place(arm.tool or "")[0])
        off = next((name for name in arm.joints if int(self.model.joint(name).bodyid[0]) not in path), None)
        if off is not None:
            raise RigError(
                f"joint '{off}' of arm '{arm.name}' does not move its tool '{arm.tool}' in {self.name}. Name the "
                "joints between base and tool."
            )

    def frame(self, name: str | None) -> str:
        """The name of a frame, `world` for the file's own."""
        if name in (None, _WORLD, self.root):
            return _WORLD
        self.place(name or "")
        return name or ""

    def place(self, name: str) -> tuple[int, NDArray[np.float64], NDArray[np.float64]]:
        """Body, position and turn (quaternion) of a site or body. Raises RigError where there is none."""
        sites, bodies = self._names("site"), self._names("body")
        if name in sites:
            site = self.model.site(name)
            return int(site.bodyid[0]), site.pos, site.quat
        if name in bodies:
            return self.model.body(name).id, np.zeros(3), np.array([1.0, 0, 0, 0])
        raise RigError(f"{self.name} has no site, body or link '{name}'. {did_you_mean(name, [*sites, *bodies])}")

    def chain(self, places: Sequence[str]) -> str:
        """MJCF of the bodies that lead to `places`, each of which becomes a site `tool:NAME`."""
        found = {name: self.place(name) for name in dict.fromkeys(places)}
        kept = sorted({body for at, _, _ in found.values() for body in self._path(at)})  # parents come first
        root = ET.Element("mujoco")
        ET.SubElement(root, "compiler", angle="radian", autolimits="false")
        elements = {0: ET.SubElement(root, "worldbody")}
        model = self.model
        for body in kept:
            parent = elements[int(model.body_parentid[body])]
            element = ET.SubElement(
                parent, "body", pos=_words(model.body_pos[body]), quat=_words(model.body_quat[body])
            )
            ET.SubElement(element, "inertial", pos="0 0 0", mass="1", diaginertia="1 1 1")
            elements[body] = element
            for joint in range(model.body_jntadr[body], model.body_jntadr[body] + model.body_jntnum[body]):
                self._add_joint(element, joint)
        for name, (body, pos, quat) in found.items():
            ET.SubElement(elements[body], "site", name=f"tool:{name}", pos=_words(pos), quat=_words(quat))
        return ET.tostring(root, encoding="unicode")

    def _add_joint(self, element: ET.Element, joint: int) -> None:
        """A free or ball joint stands still: its pose at rest is the body's."""
        model, kind = self.model, _SCALAR.get(int(self.model.jnt_type[joint]))
        if kind is not None:
            ET.SubElement(
                element,
                "joint",
                name=model.joint(joint).name or f"unnamed {joint}",
                type=kind,
                pos=_words(model.jnt_pos[joint]),
                axis=_words(model.jnt_axis[joint]),
                ref=repr(float(model.qpos0[model.jnt_qposadr[joint]])),
            )

    def _path(self, body: int) -> list[int]:
        """A body and those it hangs from, without the world."""
        found = []
        while body:
            found.append(body)
            body = int(self.model.body_parentid[body])
        return found

    def _names(self, kind: str) -> list[str]:
        count = {"joint": self.model.njnt, "site": self.model.nsite, "body": self.model.nbody}[kind]
        names = [str(getattr(self.model, kind)(at).name) for at in range(count)]
        return [name for name in names if name]


def _urdf_root(path: Path) -> str | None:
    """The link that no joint leads to, in a URDF; None in MJCF."""
    root = ET.parse(path).getroot()
    if root.tag != "robot":
        return None
    led_to = {child.get("link") for child in root.iterfind("joint/child")}
    return next((name for link in root.iterfind("link") if (name := link.get("name")) not in led_to), None)


def _words(values: NDArray[np.float64]) -> str:
    return " ".join(repr(float(value)) for value in values)

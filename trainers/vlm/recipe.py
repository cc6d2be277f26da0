"""The recipes of the small VLM, each with the curriculum that teaches it to read before it is asked to think.

From scratch on the whole task nothing was learned in 15 CPU-minutes. What works: the vision tower first learns which
character stands where (a loss on each patch), then short answers, then all skills, while fonts, geometry and weather
are ramped up.
"""

from dataclasses import replace

from dataengine.rendered import SKILLS, Difficulty, Skill
from schemas.errors import TrainError, did_you_mean
from trainers.recipes import VlmSize
from trainers.vlm.config import VlmConfig
from trainers.vlm.phase import Phase


def nano_vlm() -> VlmConfig:
    """About two million weights, 48 tokens per 320x240 picture; an hour on two cores."""
    size = VlmSize(
        width=160,
        depth=4,
        heads=4,
        key_heads=2,
        mlp_width=480,
        vocabulary=1024,
        rope_theta=100.0,  # chats are 150 tokens, not 32,000: far positions must not look alike
        rope_sections=(4, 8, 8),
        vision_width=128,
        vision_depth=3,
        vision_heads=4,
        vision_mlp_ratio=3,
        patch_size=20,
        frames_per_patch=1,
        init_std=0.04,
    )
    easy = Difficulty(styles=0, equations=0, geometry=0, weather=0)
    middle = Difficulty(styles=0.5, equations=0.3, geometry=0.5, weather=0.3)
    full = Difficulty(styles=1, equations=1, geometry=1, weather=1)
    reading: tuple[tuple[Skill, float], ...] = (("transcribe", 3.0), ("cards", 2.0), ("solve", 1.0), ("count", 0.5))
    return VlmConfig(
        name="nano_vlm",
        vlm=size,
        phases=(
            Phase(
                name="letters",
                steps=1000,  # cheap: no words are computed
                skills=reading,
                start=easy,
                end=full,
                text_weight=0.0,
                glyph_weight=1.0,
                sheets_share=0.5,
            ),
            Phase(
                name="reading",
                steps=1200,
                skills=reading,
                start=easy,
                end=middle,
                text_weight=1.0,
                glyph_weight=0.5,
                frames_share=0.2,
            ),
            Phase(
                name="all skills",
                steps=3200,
                skills=tuple((skill, 1.0) for skill in SKILLS),
                start=middle,
                end=full,
                text_weight=1.0,
                glyph_weight=0.2,
                frames_share=0.4,
                crops_share=0.12,
            ),
        ),
        pictures_per_step=32,
        questions_per_picture=4,
        sums_per_picture=3,
        learning_rate=1.5e-3,
        final_learning_rate=1e-4,
        warmup_steps=100,
        stop_after=4400,  # what two shared cores did in two hours
    )


def nano_vlm_places() -> VlmConfig:
    """What `nano_vlm` left open: finding cards. Starts from its weights.

    Qwen2-VL tells tokens where they are by rotation alone, so nothing that a token holds says where it lies, and
    places could not be learned from answers. Here each picture token must say, halfway through the language model,
    where it lies and what is written in it; and one card comes before three.
    """
    base = nano_vlm()
    middle = Difficulty(styles=0.5, equations=0.5, geometry=0.5, weather=0.3)
    full = Difficulty(styles=1, equations=1, geometry=1, weather=1)
    finding: tuple[tuple[Skill, float], ...] = (("cards", 4.0), ("point", 4.0), ("count", 1.0), ("transcribe", 1.0))
    return replace(
        base,
        name="nano_vlm_places",
        goes_on_from=base.name,
        phases=(
            Phase(
                name="one card",
                steps=300,
                skills=finding,
                start=middle,
                end=middle,
                text_weight=1.0,
                glyph_weight=0.3,
                token_weight=0.8,
                frames_share=0.1,
                most_cards=1,
            ),
            Phase(
                name="three cards",
                steps=350,
                skills=finding,
                start=middle,
                end=full,
                text_weight=1.0,
                glyph_weight=0.3,
                token_weight=0.5,
                frames_share=0.3,
                most_cards=3,
                asks_places=True,
            ),
            Phase(
                name="all skills",
                steps=650,
                skills=tuple((skill, 3.0 if skill in ("cards", "point") else 1.0) for skill in SKILLS),
                start=full,
                end=full,
                text_weight=1.0,
                glyph_weight=0.2,
                token_weight=0.3,
                frames_share=0.4,
                crops_share=0.15,
                asks_places=True,
            ),
        ),
        questions_per_picture=6,
        sums_per_picture=2,
        learning_rate=1e-3,
        warmup_steps=50,
        stop_after=None,
    )


def nano_vlm_things() -> VlmConfig:
    """What `nano_vlm_places` left open: objects and their colours, cards cut out alone, more of everything.

    Objects were as hard to find as cards, and the same remedy is tried: each picture token says which object it holds.
    """
    base = nano_vlm_places()
    *_, last = base.phases
    things: tuple[tuple[Skill, float], ...] = (("colour", 3.0), ("relation", 3.0), ("gripper", 2.0), ("refusal", 2.0))
    asked_more = dict.fromkeys(("solve", "cards", "choice", "trace", "colour", "relation", "point"), 2.0)
    last = replace(last, thing_weight=0.3, crops_share=0.2, crops_evenly=True)
    return replace(
        base,
        name="nano_vlm_things",
        goes_on_from=base.name,
        phases=(
            replace(last, name="things", steps=200, skills=(*things, ("cards", 2.0), ("solve", 1.0)), crops_share=0.1),
            replace(last, steps=1800, skills=tuple((skill, asked_more.get(skill, 1.0)) for skill in SKILLS)),
        ),
    )


def nano_vlm_more() -> VlmConfig:
    """More of everything, half as many pictures again a step, and each pair of objects asked about both ways."""
    base = nano_vlm_things()
    *_, last = base.phases
    asked_less = dict.fromkeys(("transcribe", "count", "gripper", "refusal"), 1.0)
    skills = tuple((skill, asked_less.get(skill, 2.0)) for skill in SKILLS)
    return replace(
        base,
        name="nano_vlm_more",
        goes_on_from=base.name,
        phases=(replace(last, steps=1000, skills=skills, frames_share=0.35),),
        pictures_per_step=48,
        sums_per_picture=4,
        final_learning_rate=3e-5,
        weight_decay=0.05,
    )


def nano_vlm_reasons() -> VlmConfig:
    """Picking a card by what was worked out, which is said before: `4+1: 4,1 5,0. I pick 5 from the middle.`

    Asked for the card alone, the four recipes before learned to guess (12 % right): nothing that was read and solved on
    the way could be said. And where each of two objects lies is asked besides how they lie, as it was with cards.
    """
    base = nano_vlm_more()
    *_, last = base.phases
    shares: dict[Skill, float] = {"choice": 4.0, "relation": 4.0, "transcribe": 0.7, "count": 0.3, "colour": 1.0}
    skills = tuple((skill, shares.get(skill, 2.0)) for skill in SKILLS)
    return replace(
        base,
        name="nano_vlm_reasons",
        goes_on_from=base.name,
        phases=(replace(last, steps=800, skills=skills, frames_share=0.35, crops_share=0.12, asks_things=True),),
        pictures_per_step=32,
    )


def nano_vlm_looks() -> VlmConfig:
    """Finding the card with a number, and comparing two objects, by being told where to look.

    Points were exact to two pixels and on the wrong card half of the time: what each picture token holds was known,
    which of them the question means was not. So each token says the number of its card as a whole, not digit by digit;
    one head of the third layer is told at which token each word of an answer is found, a second one where the other of
    two things lies, and the first where nothing is to be found.
    """
    base = nano_vlm_reasons()
    *_, last = base.phases
    shares: dict[Skill, float] = {"relation": 3.0, "transcribe": 1.5, "count": 0.3, "colour": 1.0}
    skills = tuple((skill, shares.get(skill, 2.0)) for skill in SKILLS)
    return replace(
        base,
        name="nano_vlm_looks",
        goes_on_from=base.name,
        phases=(
            replace(
                last,
                steps=1800,
                skills=skills,
                frames_share=0.3,
                card_weight=0.3,
                gaze_weight=0.5,
                point_step_px=5,
            ),
        ),
    )


def nano_vlm_hands() -> VlmConfig:
    """Reading hands that it has never seen: of what was learned 99 of 100 answer words were right, of what is held out
    not.

    Three of five pictures, and four of five scenes of the simulator, are written by pens and typefaces drawn for the
    purpose; the simulator shows four times as many scenes for its frames, which tell where all cards lie; and the
    vision tower has two blocks more, which begin by adding nothing.
    """
    base = nano_vlm_looks()
    (last,) = base.phases
    shares: dict[Skill, float] = {"count": 0.3, "colour": 0.7, "cards": 3.0}
    skills = tuple((skill, shares.get(skill, 2.0)) for skill in SKILLS)
    many = replace(last.end, hands=0.6)
    return replace(
        base,
        name="nano_vlm_hands",
        goes_on_from=base.name,
        vlm=replace(base.vlm, vision_depth=5),
        phases=(
            replace(
                last,
                steps=1900,
                skills=skills,
                start=many,
                end=many,
                glyph_weight=0.4,
                frames_share=0.25,
                crops_share=0.18,
            ),
        ),
        questions_per_picture=5,
        sums_per_picture=2,
        scene_hands=0.8,
        frames_per_scene=4,
    )


def nano_vlm_counts() -> VlmConfig:
    """More of the same, from weights that said sums at once: since then all recipes count them out, and draw typefaces
    with thick and thin strokes and feet.

    Said at once, learned sums of one digit were all right, and of held-out ones two thirds: a table of so few pairs is
    learned by heart. And typefaces were read worse than pens, most of all those with feet.
    """
    base = nano_vlm_hands()
    (last,) = base.phases
    shares: dict[Skill, float] = {"count": 0.3, "colour": 0.7, "cards": 3.0, "gripper": 3.0}
    skills = tuple((skill, shares.get(skill, 2.0)) for skill in SKILLS)
    many = replace(last.end, hands=0.75)
    return replace(
        base,
        name="nano_vlm_counts",
        goes_on_from=base.name,
        heads_drawn_beside=nano_vlm_looks().vlm.vision_depth,
        phases=(replace(last, skills=skills, start=many, end=many, crops_share=0.2),),
        scene_hands=0.9,
    )


def nano_vlm_reads() -> VlmConfig:
    """Reading, of which even training's own pictures ask more than was learned: 59 % of its boards with brackets, 72 %
    of its tables of cards.

    Sums in words, which are known, make way for it: one beside each picture instead of two. A third of all boards have
    brackets, and the vision tower has eight blocks instead of five.
    """
    base = nano_vlm_counts()
    (last,) = base.phases
    shares: dict[Skill, float] = {
        "cards": 4.0,
        "gripper": 3.0,
        "refusal": 3.0,
        "solve": 1.5,
        "trace": 1.5,
        "choice": 1.0,
        "relation": 1.0,
        "colour": 0.5,
        "count": 0.3,
    }
    skills = tuple((skill, shares.get(skill, 2.0)) for skill in SKILLS)
    bracketed = replace(last.end, brackets=0.3)
    return replace(
        base,
        name="nano_vlm_reads",
        goes_on_from=base.name,
        vlm=replace(base.vlm, vision_depth=8),
        phases=(replace(last, steps=2200, skills=skills, start=bracketed, end=bracketed, card_weight=0.5),),
        questions_per_picture=4,
        sums_per_picture=1,
    )


VLM_RECIPES = {
    "nano_vlm": nano_vlm,
    "nano_vlm_places": nano_vlm_places,
    "nano_vlm_things": nano_vlm_things,
    "nano_vlm_more": nano_vlm_more,
    "nano_vlm_reasons": nano_vlm_reasons,
    "nano_vlm_looks": nano_vlm_looks,
    "nano_vlm_hands": nano_vlm_hands,
    "nano_vlm_counts": nano_vlm_counts,
    "nano_vlm_reads": nano_vlm_reads,
}


def vlm_recipe(name: str) -> VlmConfig:
    """The recipe of this name. Raises TrainError that names the nearest one."""
    if name not in VLM_RECIPES:
        raise TrainError(f"no recipe '{name}'. {did_you_mean(name, VLM_RECIPES)}")
    return VLM_RECIPES[name]()

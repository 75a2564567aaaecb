"""The checkpoints of bench/study.py with their texts. Calibration and evaluation text never overlap."""
import sys
from array import array
from dataclasses import dataclass, field
from pathlib import Path

import measuring

NAMES = ["TinyStories-656K", "kjv-1.8M", "stories260K"]
DRAWN, DRAWN_FOR_EVALUATION = 1200, 24  # sequences
DRAWN_LENGTH = 255  # tokens, to which eval adds BOS


@dataclass(frozen=True)
class Text:
    path: Path
    are_tokens: bool = False

    @property
    def name(self):
        return self.path.stem

    def options(self, prefix):
        return [f"--{prefix}{'tokens' if self.are_tokens else 'text'}", self.path]

    def pieces(self, count, directory):
        """Disjoint pieces of equal length, cut at line breaks if they are text."""
        content = self.path.read_bytes()
        size = len(content) // count // 2 * 2
        for i in range(count):
            piece = content[i * size:(i + 1) * size]
            if not self.are_tokens:
                piece = piece[piece.find(b"\n") + 1:piece.rfind(b"\n") + 1]
            path = directory / f"piece-{i}{self.path.suffix}"
            path.write_bytes(piece)
            yield Text(path, self.are_tokens)


@dataclass(frozen=True)
class StudyModel:
    name: str
    checkpoint: Path
    calibration: Text
    evaluation: Text
    other_texts: list = field(default_factory=list)
    every_budget: bool = False

    def contexts(self, contexts):
        """The largest length of generated sequences."""
        return [c for c in contexts if not self.evaluation.are_tokens or c == DRAWN_LENGTH + 1]


def draw_tokens(options, checkpoint, path, first_seed, count):
    """Sequences that the model generates after BOS at temperature 1, because it has no tokenizer."""
    if path.exists():
        return
    bos = path.with_name("bos.u16")
    bos.write_bytes(array("H", [1]).tobytes())
    ids = array("H")
    for seed in range(first_seed, first_seed + count):
        said = measuring.run_json(options.program, "generate", checkpoint, "--prompt-tokens", bos, "--temperature", 1,
                                  "--seed", seed, "--max-new-tokens", DRAWN_LENGTH, "--ignore-eos")
        ids.extend(said["ids"][len(said["prompt_ids"]):])
    path.write_bytes(ids.tobytes())


def stories_260k(options):
    checkpoint = options.shared / "models/stories260K"
    directory = options.work / "stories260K"
    calibration, evaluation = directory / "drawn-calibration.u16", directory / "drawn-eval.u16"
    if checkpoint.exists():
        directory.mkdir(parents=True, exist_ok=True)
        draw_tokens(options, checkpoint, calibration, 0, DRAWN)
        draw_tokens(options, checkpoint, evaluation, DRAWN, DRAWN_FOR_EVALUATION)
    return StudyModel("stories260K", checkpoint, Text(calibration, True), Text(evaluation, True), every_budget=True)


def find(options):
    """The models of `options.models` whose files exist; prints the names of the others."""
    data, examples = options.shared / "data", Path(__file__).parent.parent / "examples"
    stories, bible = Text(data / "tinystories-calibration.txt"), Text(examples / "kjv-calibration.txt")
    wiki = Text(data / "wikitext-2-raw.test.txt")
    made = {"TinyStories-656K": lambda: StudyModel("TinyStories-656K", options.shared / "models/TinyStories-656K", stories,
                                                   Text(data / "tinystories-eval.txt"), [bible, wiki]),
            "kjv-1.8M": lambda: StudyModel("kjv-1.8M", examples / "kjv-1.8M", bible, Text(examples / "kjv-eval.txt"),
                                           [text for text in (stories, wiki) if text.path.exists()]),
            "stories260K": lambda: stories_260k(options)}
    for name in options.models:
        model = made[name]()
        missing = [p for p in (model.checkpoint, model.calibration.path, model.evaluation.path) if not p.exists()]
        if missing:
            print(f"{name} is skipped: {missing[0]} does not exist", file=sys.stderr)
        else:
            yield model

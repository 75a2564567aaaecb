#!/usr/bin/env python3
"""Checks what the sources promise about each other. Usage: sources_test.py REPOSITORY {rooms,files,options}

rooms: a folder of src/ includes only folders that stand above it in the table of docs/development.md, and headers of
       include/mha2mla that belong to these; every folder and every header stands in the table.
files: every source file stands in a CMakeLists.txt.
options: no text of the library names an option of the program.
"""
import pathlib
import re
import sys

ROOT = pathlib.Path(sys.argv[1])
SRC = ROOT / "src"
PUBLIC = ROOT / "include/mha2mla"
FOLDERS = ("src", "tools", "tests", "bench")
INCLUDE = re.compile(r'^#include "([^"]+)"', re.MULTILINE)


def table() -> tuple[list[str], dict[str, str]]:
    """The rooms in the order of the table, and the room of each public header."""
    rooms, header_rooms = [], {}
    section = (ROOT / "docs/development.md").read_text().split("\n## Rooms\n")[1].split("\n## ")[0]
    for line in section.splitlines():
        if line.startswith("| `"):  # | `room` | content | public headers |
            room, _, headers = (cell.strip() for cell in line.split("|")[1:4])
            rooms.append(room.strip("`"))
            header_rooms |= {name + ".hpp": rooms[-1] for name in re.findall(r"`([a-z_]+)`", headers)}
    return rooms, header_rooms


def check_rooms() -> list[str]:
    rooms, header_rooms = table()
    level = {room: index for index, room in enumerate(rooms)}
    folders = {path.name for path in SRC.iterdir() if path.is_dir()}
    headers = {path.name for path in PUBLIC.iterdir()}
    faults = [f"src/{room} is in only one of the tree and the table" for room in sorted(folders ^ level.keys())]
    faults += [f"{header} is in only one of include/mha2mla and the table" for header in sorted(headers ^ header_rooms.keys())]

    files = [(path, path.relative_to(SRC).parts[0]) for path in SRC.glob("*/**/*") if path.suffix in {".cpp", ".hpp", ".h"}]
    files += [(path, header_rooms.get(path.name, "")) for path in PUBLIC.iterdir()]
    for path, room in sorted(files):
        for name in INCLUDE.findall(path.read_text()):
            if name.startswith("mha2mla/"):
                other = header_rooms.get(name.removeprefix("mha2mla/"), "")
            else:
                target = (path.parent / name).resolve()
                if SRC.resolve() not in target.parents:
                    continue  # of the build
                other = target.relative_to(SRC.resolve()).parts[0]
            if other in level and room in level and level[other] > level[room]:
                faults.append(f"{path.relative_to(ROOT)} of `{room}` includes {name} of `{other}`")
    return faults


def check_files() -> list[str]:
    lists = {path.parent: path.read_text() for top in FOLDERS for path in (ROOT / top).rglob("CMakeLists.txt")}
    faults = []
    for top in FOLDERS:
        for path in sorted((ROOT / top).rglob("*.cpp")):
            named = any(re.search(rf"(?<![\w/]){re.escape(path.relative_to(folder).as_posix())}\b", text)
                        for folder, text in lists.items() if folder in path.parents)
            by_target = path.stem.startswith("fuzz_") and re.search(rf"\b{path.stem.removeprefix('fuzz_')}\b",
                                                                    lists.get(path.parent, ""))
            if not named and not by_target:
                faults.append(f"{path.relative_to(ROOT)} stands in no CMakeLists.txt")
    return faults


def check_options() -> list[str]:
    literal = re.compile(r'"((?:[^"\\\n]|\\.)*)"')
    faults = []
    for path in sorted(SRC.rglob("*.[ch]pp")) + sorted(PUBLIC.iterdir()):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if any(re.search(r"(?<![\w-])--[a-z]", text) for text in literal.findall(line.split(" // ")[0])):
                faults.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()}")
    return faults


faults = {"rooms": check_rooms, "files": check_files, "options": check_options}[sys.argv[2]]()
for fault in faults:
    print(fault)
print(f"{len(faults)} faults")
sys.exit(bool(faults))

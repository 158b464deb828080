# SPDX-License-Identifier: Apache-2.0
"""x86-64 instructions at the beginning of a function: how long they are, and the same elsewhere.

Known is what compilers put there. Everything else is refused, so that nothing is ever moved that
is not understood.
"""

from __future__ import annotations

import struct

__all__ = ["CodeError", "Instruction", "decode", "displace", "far_jump", "jumps_into"]
__all__ += ["near_jump"]

_PREFIXES = frozenset({0x66, 0xF2, 0xF3, 0x64, 0x65, 0x2E, 0x3E})
_LONGEST = 15
_RANGE = 1 << 31
# One byte opcodes with a ModRM byte, and the bytes of the immediate behind it.
_MODRM: dict[int, int] = dict.fromkeys(
    (
        *(base + low for base in range(0, 0x40, 8) for low in range(4)),  # add … cmp
        *(0x63, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8B, 0x8D),
        *(0xD0, 0xD1, 0xD2, 0xD3, 0xFE, 0xFF),
    ),
    0,
)
_MODRM |= {0x80: 1, 0x81: 4, 0x83: 1, 0xC0: 1, 0xC1: 1, 0xC6: 1, 0xC7: 4, 0x69: 4, 0x6B: 1}
_PLAIN: dict[int, int] = dict.fromkeys(range(0x50, 0x60), 0)  # push, pop
_PLAIN |= {0x90: 0, 0x98: 0, 0x99: 0, 0x6A: 1, 0x68: 4, 0xA8: 1, 0xA9: 4}
_PLAIN |= {0x04 + 8 * n: 1 for n in range(8)} | {0x05 + 8 * n: 4 for n in range(8)}
_PLAIN |= dict.fromkeys(range(0xB8, 0xC0), 4)  # mov to a register: 8 with REX.W
# Behind 0F.
_MODRM_0F = frozenset(
    {0x10, 0x11, 0x12, 0x13, 0x14, 0x16, 0x17, 0x1E, 0x1F, 0x28, 0x29, 0x2E, 0x2F, 0x54, 0x57}
    | {0x18, 0x5A, 0x5B, 0x6C, 0x6E, 0x6F, 0x7E, 0x7F, 0xAF, 0xB0, 0xB1, 0xB6, 0xB7, 0xBC, 0xBD}
    | {0xBE, 0xBF, 0xC0, 0xC1, 0xD6, 0xEF}
    | set(range(0x40, 0x50))  # cmov
    | set(range(0x90, 0xA0))  # set
)
_MODRM_0F_BYTE = frozenset({0x70, 0xBA, 0xC6})
_ENDBR = b"\xf3\x0f\x1e\xfa"


class CodeError(Exception):
    """Instructions that are not known, or that cannot be moved."""


class Instruction:
    """One instruction: its `length`, and what in it depends on where it lies.

    `relative` is the place of a 32-bit distance of a memory operand, 0: none. `jump` is the
    distance of a jump, and `kind` which one: "jmp", "jcc"; or "ret", or "".
    """

    __slots__ = ("condition", "jump", "kind", "length", "relative")

    def __init__(
        self, length: int, *, relative: int = 0, kind: str = "", jump: int = 0, condition: int = 0
    ) -> None:
        self.length = length
        self.relative = relative
        self.kind = kind
        self.jump = jump
        self.condition = condition


def decode(code: bytes) -> Instruction:
    """Return the first instruction of `code`. Raises `CodeError` when it is not a known one."""
    try:
        return _decode(code[:_LONGEST])
    except (IndexError, struct.error):
        raise CodeError("the code ends in the middle of an instruction") from None


def _decode(code: bytes) -> Instruction:
    if code[:4] == _ENDBR:
        return Instruction(4)
    at, wide, small = 0, False, False
    while code[at] in _PREFIXES:
        small |= code[at] == 0x66
        at += 1
    if code[at] & 0xF0 == 0x40:
        wide = bool(code[at] & 8)
        at += 1
    opcode = code[at]
    at += 1
    if opcode == 0x0F:
        return _decode_two(code, at)
    if opcode == 0xEB:
        return Instruction(at + 1, kind="jmp", jump=_signed(code, at, 1))
    if opcode == 0xE9 and not small:
        return Instruction(at + 4, kind="jmp", jump=_signed(code, at, 4))
    if opcode & 0xF0 == 0x70:
        return Instruction(at + 1, kind="jcc", jump=_signed(code, at, 1), condition=opcode & 15)
    if opcode in (0xC2, 0xC3):
        return Instruction(at + (2 if opcode == 0xC2 else 0), kind="ret")
    if opcode in _PLAIN:
        size = _PLAIN[opcode]
        if opcode & 0xF8 == 0xB8 and wide:
            size = 8
        elif size == 4 and small:
            size = 2
        return _whole(code, at + size)
    if opcode in (0xF6, 0xF7):  # only test has an immediate
        size = (1 if opcode == 0xF6 else 4) if code[at] & 0x38 <= 8 else 0
        return _with_operand(code, at, 2 if size == 4 and small else size)
    if opcode == 0xFF and code[at] & 0x38 in (0x10, 0x18, 0x28):
        raise CodeError("it calls through memory")  # returns to where it was
    if opcode in _MODRM:
        size = _MODRM[opcode]
        return _with_operand(code, at, 2 if size == 4 and small else size)
    raise CodeError(f"an instruction that is not moved ({code[:at].hex(' ')})")


def _decode_two(code: bytes, at: int) -> Instruction:
    opcode = code[at]
    at += 1
    if opcode & 0xF0 == 0x80:
        return Instruction(at + 4, kind="jcc", jump=_signed(code, at, 4), condition=opcode & 15)
    if opcode == 0x05:  # a system call
        return Instruction(at)
    if opcode in _MODRM_0F:
        return _with_operand(code, at, 0)
    if opcode in _MODRM_0F_BYTE:
        return _with_operand(code, at, 1)
    raise CodeError(f"an instruction that is not moved ({code[:at].hex(' ')})")


def _with_operand(code: bytes, at: int, immediate: int) -> Instruction:
    byte = code[at]
    at += 1
    mode, low, relative = byte >> 6, byte & 7, 0
    if mode != 3:
        if low == 4:
            if mode == 0 and code[at] & 7 == 5:
                mode = 2
            at += 1
        elif mode == 0 and low == 5:
            relative = at
            mode = 2
        at += (0, 1, 4)[mode]
    end = at + immediate
    whole = _whole(code, end)
    whole.relative = relative
    return whole


def _whole(code: bytes, length: int) -> Instruction:
    if length > len(code):
        raise CodeError("the code ends in the middle of an instruction")
    return Instruction(length)


def _signed(code: bytes, at: int, size: int) -> int:
    return int(struct.unpack_from("<b" if size == 1 else "<i", code, at)[0])


def displace(code: bytes, at: int, to: int, least: int = 5) -> tuple[int, bytes]:
    """Return how many bytes of a function are replaced, and the same to be executed elsewhere.

    `code` lies at the address `at`; what it does is to be done at `to`, and goes on behind it. At
    least `least` bytes are replaced. Raises `CodeError` when that cannot be done.
    """
    done, out = 0, b""
    while done < least:
        one = decode(code[done:])
        raw = code[done : done + one.length]
        here = at + done
        done += one.length
        if one.kind == "ret":
            if done < least:
                raise CodeError("it is shorter than a jump")
            return done, out + raw
        if one.kind:
            target = here + one.length + one.jump
            if at <= target < at + least:
                raise CodeError("it jumps into its own beginning")
            out += _jump(one, target)
            if one.kind == "jmp":
                if done < least:
                    raise CodeError("it is shorter than a jump")
                return done, out
        elif one.relative:
            (distance,) = struct.unpack_from("<i", raw, one.relative)
            moved = distance + here - (to + len(out))
            if not -_RANGE <= moved < _RANGE:
                raise CodeError("what it refers to is too far away")
            out += raw[: one.relative] + struct.pack("<i", moved) + raw[one.relative + 4 :]
        else:
            out += raw
    return done, out + _far_jump(at + done)


def _jump(one: Instruction, target: int) -> bytes:
    if one.kind == "jmp":
        return _far_jump(target)
    # The opposite condition leads past a jump that reaches everywhere.
    far = _far_jump(target)
    return bytes((0x70 | (one.condition ^ 1), len(far))) + far


def _far_jump(target: int) -> bytes:
    return b"\xff\x25\0\0\0\0" + struct.pack("<Q", target)


def far_jump(target: int) -> bytes:
    """Return a jump that reaches everywhere."""
    return _far_jump(target)


def near_jump(here: int, target: int) -> bytes:
    """Return the five bytes of a jump from `here` to `target`. Raises `CodeError`: too far."""
    distance = target - here - 5
    if not -_RANGE <= distance < _RANGE:
        raise CodeError("what it is to jump to is too far away")
    return b"\xe9" + struct.pack("<i", distance)


def jumps_into(code: bytes, first: int, end: int) -> bool:
    """Whether something in `code` may be a jump to an offset in [first, end).

    Instructions are not told apart from data: it may say so of what is none.
    """
    for at in range(len(code) - 1):
        byte = code[at]
        if byte == 0xEB or byte & 0xF0 == 0x70:
            if first <= at + 2 + _signed(code, at + 1, 1) < end:
                return True
        elif byte == 0xE9 or (byte == 0x0F and code[at + 1] & 0xF0 == 0x80):
            operand = at + (1 if byte == 0xE9 else 2)
            if operand + 4 <= len(code) and first <= operand + 4 + _signed(code, operand, 4) < end:
                return True
    return False

//! The BPF programs, put together instruction by instruction: each copies the fields of a record
//! into a ring buffer, with the time and the thread. (`struct bpf_insn`, include/uapi/linux/bpf.h.)

use std::os::fd::RawFd;

/// What a program does.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan<'a> {
    /// The tracepoint's number, which the record begins with.
    pub(super) id: u16,
    /// Where the last field of the record ends, bytes.
    pub(super) record_len: usize,
    /// Let through only records whose word at this offset is one of these.
    pub(super) only: Option<(usize, &'a [u64])>,
    /// Wake the reader for every record, or only when the buffer is half full.
    pub(super) is_urgent: bool,
    /// The ring buffer, and its length in bytes.
    pub(super) ring: RawFd,
    pub(super) ring_len: u32,
    /// An array of one counter: records that found no room.
    pub(super) losses: RawFd,
}

/// The bytes of a tracepoint's record that programs must not read: they are written here instead,
/// as tracefs describes them (`common_type`, `common_pid`).
pub(super) const COMMON_LEN: usize = 8;
/// What is before the record in the ring buffer: the time.
pub(super) const TIME_LEN: usize = 8;

// Registers.
const R0: u8 = 0;
const R1: u8 = 1;
const R2: u8 = 2;
const R3: u8 = 3;
const R4: u8 = 4;
const CONTEXT: u8 = 6;
const FRAME: u8 = 10;

// Operations: class, source or size, code.
const LOAD_DW: u8 = 0x79;
const LOAD_W: u8 = 0x61;
const LOAD_H: u8 = 0x69;
const LOAD_B: u8 = 0x71;
const STORE_DW: u8 = 0x7b;
const STORE_W: u8 = 0x63;
const STORE_H: u8 = 0x6b;
const STORE_B: u8 = 0x73;
const STORE_IMMEDIATE_DW: u8 = 0x7a;
const LOAD_IMMEDIATE_DW: u8 = 0x18;
const ADD_ATOMICALLY_DW: u8 = 0xdb;
const MOVE_IMMEDIATE: u8 = 0xb7;
const MOVE: u8 = 0xbf;
const ADD_IMMEDIATE: u8 = 0x07;
const OR_IMMEDIATE: u8 = 0x47;
const SHIFT_LEFT_IMMEDIATE: u8 = 0x67;
const JUMP_IF_EQUAL: u8 = 0x1d;
const JUMP_IF_ZERO: u8 = 0x15;
const JUMP_IF_AT_MOST: u8 = 0xb5;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;

// What a wide immediate means: a map, or the value of an array map.
const PSEUDO_MAP_FD: u8 = 1;
const PSEUDO_MAP_VALUE: u8 = 2;

// Functions of the kernel (`enum bpf_func_id`).
const KTIME_GET_NS: i32 = 5;
const GET_CURRENT_PID_TGID: i32 = 14;
const RINGBUF_OUTPUT: i32 = 130;
const RINGBUF_QUERY: i32 = 134;
const RINGBUF_AVAILABLE_DATA: i32 = 0;
const RINGBUF_NO_WAKEUP: i32 = 1;
const RINGBUF_FORCE_WAKEUP: i32 = 2;

/// One instruction.
pub(super) type Instruction = [u8; 8];

/// Assembles a program.
pub(super) fn assemble(plan: Plan<'_>) -> Vec<Instruction> {
    let mut code = Vec::new();
    let stack_len = TIME_LEN + plan.record_len.next_multiple_of(8);
    let stack = |offset: usize| offset as i16 - stack_len as i16;

    code.push(instruction(MOVE, CONTEXT, R1, 0, 0));
    if let Some((offset, wanted)) = plan.only {
        code.push(instruction(LOAD_DW, R2, CONTEXT, offset as i16, 0));
        for (index, value) in wanted.iter().enumerate() {
            code.extend(wide(R1, 0, *value));
            // Over the other comparisons, of three instructions each, and over the exit.
            let to_go = (wanted.len() - 1 - index) * 3 + 2;
            code.push(instruction(JUMP_IF_EQUAL, R2, R1, to_go as i16, 0));
        }
        code.extend(leave());
    }

    code.push(instruction(CALL, 0, 0, 0, KTIME_GET_NS));
    code.push(instruction(STORE_DW, FRAME, R0, stack(0), 0));
    // common_type in the low half of the first word, common_pid in the high one.
    code.push(instruction(CALL, 0, 0, 0, GET_CURRENT_PID_TGID));
    code.push(instruction(SHIFT_LEFT_IMMEDIATE, R0, 0, 0, 32));
    code.push(instruction(OR_IMMEDIATE, R0, 0, 0, i32::from(plan.id)));
    code.push(instruction(STORE_DW, FRAME, R0, stack(TIME_LEN), 0));
    code.push(instruction(STORE_IMMEDIATE_DW, FRAME, 0, stack(stack_len - 8), 0));
    let mut offset = COMMON_LEN;
    while offset < plan.record_len {
        let (len, load, store) = match plan.record_len - offset {
            8.. => (8, LOAD_DW, STORE_DW),
            4.. => (4, LOAD_W, STORE_W),
            2.. => (2, LOAD_H, STORE_H),
            _ => (1, LOAD_B, STORE_B),
        };
        code.push(instruction(load, R2, CONTEXT, offset as i16, 0));
        code.push(instruction(store, FRAME, R2, stack(TIME_LEN + offset), 0));
        offset += len;
    }

    code.push(instruction(MOVE_IMMEDIATE, R4, 0, 0, RINGBUF_FORCE_WAKEUP));
    if !plan.is_urgent {
        code.extend(wide(R1, PSEUDO_MAP_FD, u64::from(plan.ring as u32)));
        code.push(instruction(MOVE_IMMEDIATE, R2, 0, 0, RINGBUF_AVAILABLE_DATA));
        code.push(instruction(CALL, 0, 0, 0, RINGBUF_QUERY));
        code.push(instruction(MOVE_IMMEDIATE, R4, 0, 0, RINGBUF_NO_WAKEUP));
        let half = (plan.ring_len / 2) as i32;
        code.push(instruction(JUMP_IF_AT_MOST, R0, 0, 1, half));
        code.push(instruction(MOVE_IMMEDIATE, R4, 0, 0, RINGBUF_FORCE_WAKEUP));
    }
    code.extend(wide(R1, PSEUDO_MAP_FD, u64::from(plan.ring as u32)));
    code.push(instruction(MOVE, R2, FRAME, 0, 0));
    code.push(instruction(ADD_IMMEDIATE, R2, 0, 0, -(stack_len as i32)));
    code.push(instruction(MOVE_IMMEDIATE, R3, 0, 0, stack_len as i32));
    code.push(instruction(CALL, 0, 0, 0, RINGBUF_OUTPUT));
    code.push(instruction(JUMP_IF_ZERO, R0, 0, 4, 0));
    code.extend(wide(R1, PSEUDO_MAP_VALUE, u64::from(plan.losses as u32)));
    code.push(instruction(MOVE_IMMEDIATE, R2, 0, 0, 1));
    code.push(instruction(ADD_ATOMICALLY_DW, R1, R2, 0, 0));
    code.extend(leave());
    code
}

/// Returning 1 lets others who watch the tracepoint have the record too.
fn leave() -> [Instruction; 2] {
    [instruction(MOVE_IMMEDIATE, R0, 0, 0, 1), instruction(EXIT, 0, 0, 0, 0)]
}

fn instruction(code: u8, to: u8, from: u8, offset: i16, immediate: i32) -> Instruction {
    let [o0, o1] = offset.to_ne_bytes();
    let [i0, i1, i2, i3] = immediate.to_ne_bytes();
    let registers = if cfg!(target_endian = "little") { from << 4 | to } else { to << 4 | from };
    [code, registers, o0, o1, i0, i1, i2, i3]
}

/// A 64-bit immediate takes two instructions.
fn wide(to: u8, meaning: u8, value: u64) -> [Instruction; 2] {
    let (low, high) = (value as u32, (value >> 32) as u32);
    [
        instruction(LOAD_IMMEDIATE_DW, to, meaning, 0, low.cast_signed()),
        instruction(0, 0, 0, 0, high.cast_signed()),
    ]
}

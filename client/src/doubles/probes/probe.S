#include "probe.h"
	.text
	.globl probe_table
	.balign 16
probe_table:
	.long PROBE_WORDS, 0x01020304, -1
	.quad probe_table
	.string "some text"
	.uleb128 624485
	.section .rodata.probe, "a"
	.balign 8
	.quad probe_table - .
	.weak probe_weak
	.comm probe_common, 64, 8

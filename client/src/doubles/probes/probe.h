#pragma once
#define PROBE_WORDS 37
#ifndef __ASSEMBLER__
struct pair_of { double real; float half; short tag; };
#endif

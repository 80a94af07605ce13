# Compiles the library's C files, one object each; nothing is linked.
CC ?= cc
CFLAGS ?= -O2 -g -MD
SOURCES := $(wildcard common/*.c compress/*.c decompress/*.c dictBuilder/*.c)
OBJECTS := $(SOURCES:%.c=out/%.o)

all: $(OBJECTS)

out/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -DXXH_NAMESPACE=ZSTD_ -DZSTD_DISABLE_ASM=1 -c -o $@ $<

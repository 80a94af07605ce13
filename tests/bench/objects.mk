# Compiles C files, one object each, without a shell and without any other program, so that only make, wrapper and compiler count.
SOURCES := $(wildcard $(addsuffix /*.c,$(FOLDERS)))

all: $(SOURCES:%.c=out/%.o)

out/%.o: %.c
	$(CC) -O2 -g -DXXH_NAMESPACE=ZSTD_ -DZSTD_DISABLE_ASM=1 -c -o $@ $<

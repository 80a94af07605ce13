# Compiles files, one object each, without a shell and without any other program, so that only make, wrapper and compiler count.
all: $(FILES:%=$(OUT)/%.o)

$(OUT)/%.o: %
	$(COMPILER) $(FLAGS) -c -o $@ $<

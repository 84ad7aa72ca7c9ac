# Compiles the BPF programs: build/bpf/*.bpf.o. Included by the top Makefile, or `make -f bpf/build.mk bpf`.
CLANG ?= clang-14
BPF_OUT ?= build/bpf
BPF_VMLINUX := build/bpf/vmlinux.h
BPF_NAMES := uplink mirror witness snapshot impair
BPF_OBJECTS := $(BPF_NAMES:%=$(BPF_OUT)/%.bpf.o)
BPF_HEADERS := $(wildcard bpf/*.h)
BPF_CFLAGS := -O2 -g -target bpf -mcpu=v3 -std=gnu11 -Wall -Wextra -Werror -Ibuild/bpf -Ibpf

.PHONY: bpf
bpf: $(BPF_OBJECTS)

# The running kernel's types; CO-RE moves the few fields that are used to where another kernel has them.
$(BPF_VMLINUX):
	@mkdir -p $(@D)
	@bpftool btf dump file /sys/kernel/btf/vmlinux format c > $@.tmp && mv $@.tmp $@

$(BPF_OUT)/%.bpf.o: bpf/%.bpf.c $(BPF_HEADERS) $(BPF_VMLINUX) bpf/build.mk
	@mkdir -p $(@D)
	@$(CLANG) $(BPF_CFLAGS) -c $< -o $@.tmp && mv $@.tmp $@

/* Runs one compiled function under an emulator: calls come in on stdin, and memory goes back on stdout.

   A call:   the number of new loops, which may be called by their addresses; each as (address, size, bytes); the number
             of words; the words, each as (region or -1, value or offset into the region); eight floating-point
             arguments as bits; the number of regions; each region as (size, address modulo 64, bytes).
   A reply:  the status, 64 bytes of returned value, and the regions' bytes.

   All numbers are 64 bits wide. Integers and pointers go to x0..x7 and then to the stack, floating point to v0..v7,
   so one call with as many words as any function takes serves them all (AAPCS64, section 6.8). */

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define WORDS 192
#define REGIONS 256

#define W1(i) , w[i]
#define W8(i) W1(i) W1(i + 1) W1(i + 2) W1(i + 3) W1(i + 4) W1(i + 5) W1(i + 6) W1(i + 7)
#define W64(i) W8(i) W8(i + 8) W8(i + 16) W8(i + 24) W8(i + 32) W8(i + 40) W8(i + 48) W8(i + 56)

extern int32_t nbdense_entry(double, double, double, double, double, double, double, double, uint64_t, ...);

/* What numba's runtime gives to compiled code: a reference-counted block whose data pointer is its fourth word. */
struct block {
    size_t references;
    void *destructor, *information, *data;
    size_t size;
    void *allocator;
};

static struct block *allocate(size_t size) {
    struct block *made = malloc(sizeof *made);
    void *data = aligned_alloc(64, (size + 127) / 64 * 64);
    if (!made || !data) abort();
    *made = (struct block){1, NULL, NULL, data, size, NULL};
    return made;
}

struct block *NRT_MemInfo_alloc_aligned(size_t size, uint32_t align) { (void)align; return allocate(size); }
struct block *NRT_MemInfo_alloc_safe_aligned(size_t size, uint32_t align) { (void)align; return allocate(size); }

void *NRT_Allocate(size_t size) { return malloc(size); }

void NRT_Free(void *memory) { free(memory); }

void NRT_MemInfo_call_dtor(struct block *block) {
    free(block->data);
    free(block);
}

/* Strides of a reshaped array; all that are reshaped here are C-ordered. 0 is numba's "would need a copy". */
int numba_attempt_nocopy_reshape(intptr_t dimensions, const intptr_t *shape, const intptr_t *strides, intptr_t wanted,
                                 const intptr_t *new_shape, intptr_t *new_strides, intptr_t size, int fortran) {
    intptr_t step = size, count = 1;
    for (intptr_t i = 0; i < dimensions; i++) count *= shape[i];
    for (intptr_t i = dimensions - 1; i >= 0; step *= shape[i--])
        if (count && (fortran || (shape[i] != 1 && strides[i] != step))) return 0;
    step = size;
    for (intptr_t i = wanted - 1; i >= 0; step *= new_shape[i--]) new_strides[i] = step;
    return 1;
}

static void take(void *to, size_t size) {
    if (size && fread(to, size, 1, stdin) != 1) exit(feof(stdin) ? 0 : 1);
}

static uint64_t number(void) {
    uint64_t value;
    take(&value, sizeof value);
    return value;
}

static void claim(void *address, size_t size) {
    int open = PROT_READ | PROT_WRITE | PROT_EXEC;
    if (mmap(address, size, open, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != address) exit(3);
}

/* What loops call, where they look for it. */
static void set_functions(void) {
    void *functions[] = {FUNCTIONS};
    claim((void *)FUNCTIONS_AT, sizeof functions);
    memcpy((void *)FUNCTIONS_AT, functions, sizeof functions);
}

static void take_loop(void) {
    char *address = (char *)number();
    uint64_t size = number(), spare = 1 << 16; /* for what begins as zeros */
    claim(address, size + spare);
    take(address, size);
    __builtin___clear_cache(address, address + size);
}

int main(void) {
    static uint64_t places[WORDS][2], sizes[REGIONS], w[WORDS];
    static void *blocks[REGIONS];
    static char *regions[REGIONS];
    set_functions();
    for (;;) {
        double f[8];
        for (uint64_t loops = number(); loops; loops--) take_loop();
        uint64_t words = number();
        if (words > WORDS - 2) return 2;
        take(places, words * sizeof places[0]);
        take(f, sizeof f);
        uint64_t count = number();
        if (count > REGIONS) return 2;
        for (uint64_t i = 0; i < count; i++) {
            sizes[i] = number();
            uint64_t place = number();
            blocks[i] = aligned_alloc(64, (sizes[i] + place + 127) / 64 * 64);
            if (!blocks[i]) return 3;
            regions[i] = (char *)blocks[i] + place;
            take(regions[i], sizes[i]);
        }
        _Alignas(64) char returned[64] = {0};
        void *error = NULL;
        w[0] = (uint64_t)returned;
        w[1] = (uint64_t)&error;
        for (uint64_t i = 0; i < words; i++)
            w[i + 2] = places[i][1] + (places[i][0] == UINT64_MAX ? 0 : (uint64_t)regions[places[i][0]]);
        int64_t status = nbdense_entry(
            f[0], f[1], f[2], f[3], f[4], f[5], f[6], f[7], w[0] W1(1) W1(2) W1(3) W1(4) W1(5) W1(6) W1(7)
            W8(8) W8(16) W8(24) W8(32) W8(40) W8(48) W8(56) W64(64) W64(128));
        fwrite(&status, sizeof status, 1, stdout);
        fwrite(returned, sizeof returned, 1, stdout);
        for (uint64_t i = 0; i < count; i++) {
            fwrite(regions[i], 1, sizes[i], stdout);
            free(blocks[i]);
        }
        fflush(stdout);
    }
}

// Products of values of the library's type: see product.h.
#include "micro_kernel.h"

void panel(long vectors, long rows, long depth, Operand a, const scalar* b, long b_step,
           Store to) {
  panel_of<Values>(vectors, rows, depth, a, b, b_step, to, Nothing{});
}

extern "C" void micro_kernel_rate(const scalar* a, const scalar* b, scalar* c, long rows,
                                  long depth, long columns, long repeats, long threads) {
  repeat_products<Values>(a, b, c, rows, depth, columns, repeats, threads);
}

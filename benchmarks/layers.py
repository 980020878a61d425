"""Time every form of every layer of the pair, forward and with gradients.

python benchmarks/layers.py [--batch=16] [--ngf=256] [--ndf=64] [--only="G main"] [--cores]

stride2.py and conv3x3.py choose by what this prints; the forms are equal in value (tests/nets/test_convolutions.py).
"""

import argparse
import functools
import time

import jax
import jax.numpy as jnp
import numpy as np

from skullgan_jax.nets import conv3x3, layout, stride2
from skullgan_jax.nets.forms import by_platform


def seconds(f, *args, repeats, cores):
    """Median seconds of f(*args), compiled and warm; with `cores` the mean of what all cores together take."""
    clock = time.process_time if cores else time.perf_counter
    jax.block_until_ready(f(*args))
    times = []
    for _ in range(repeats):
        start = clock()
        jax.block_until_ready(f(*args))
        times.append(clock() - start)
    # Of other threads the system counts whole ticks: one call may seem to take nothing.
    return float(np.mean(times) if cores else np.median(times))


def cases(ngf, ndf):
    """(name, its forms, H, Cin, kernel shape) of each layer."""
    # Their images come and go with channels apart, as between neighbours: the transposes at both ends cancel.
    up_apart, same_apart, up_blocks, down_blocks = (
        by_platform(forms, forms)
        for forms in (
            stride2._UPCONV_APART,
            conv3x3._CONV3X3_APART,
            stride2._UPCONV_BLOCKS,
            stride2._DOWNCONV_BLOCKS,
        )
    )
    up = {
        "xla": stride2._upconv_xla,
        "matmul": stride2._upconv_matmul,
        "karatsuba": stride2._upconv_karatsuba,
        "blocks": up_blocks,
        "apart": lambda x, kernel: layout.apart(up_apart(x, kernel)),
    }
    down = {
        "xla": stride2._downconv_xla,
        "patches": stride2._downconv_patches,
        "winograd": stride2._downconv_winograd,
        "blocks": down_blocks,
    }
    same = {
        "xla": conv3x3._conv3x3_xla,
        "matmul": conv3x3._conv3x3_matmul,
        "winograd": conv3x3._conv3x3_winograd,
        "apart": lambda x, kernel: layout.apart(same_apart(layout.together(x), kernel)),
    }
    for i in range(5):
        cin, cout = 16 * ngf >> i, 8 * ngf >> i
        yield f"G main{i + 2}", up, 4 << i, cin, (cin, 4, 4, cout)
    for i, cin in enumerate((ngf // 2, ngf // 4, ngf // 8, ngf // 16)):
        cout = cin // 2 if i < 3 else 1
        yield f"G conv{i + 1}", same, 128, cin, (3, 3, cin, cout)
    for i in range(5):
        cin, cout = (ndf << i) // 2 if i else 1, ndf << i
        yield f"D conv{i + 1}", down, 128 >> i, cin, (4, 4, cin, cout)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--ngf", type=int, default=256)
    parser.add_argument("--ndf", type=int, default=64)
    parser.add_argument("--only", default="", help="part of a layer's name")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cores", action="store_true", help="seconds of all cores, for a machine that others use, too")
    parser.add_argument("--slow", action="store_true", help="also XLA's gradients of large layers on a CPU")
    args = parser.parse_args()
    random = np.random.default_rng(0)
    print(f"{jax.devices()[0].device_kind}, batch {args.batch}; seconds")
    print(f"{'layer':10} {'in':>16} {'form':>10} {'forward':>9} {'dx':>9} {'dkernel':>9}")
    for name, forms, h, cin, kernel_shape in cases(args.ngf, args.ndf):
        if args.only not in name:
            continue
        image = jnp.asarray(random.standard_normal((args.batch, h, h, cin), np.float32))
        kernel = jnp.asarray(random.standard_normal(kernel_shape, np.float32) * 0.01)
        for form, f in forms.items():
            x = layout.apart(image) if form == "apart" and name.startswith("G conv") else image
            forward = jax.jit(f)
            dy = forward(x, kernel)
            time_it = functools.partial(seconds, repeats=args.repeats, cores=args.cores)
            row = [time_it(forward, x, kernel)]
            if form != "xla" or args.slow or jax.default_backend() != "cpu" or row[0] < 0.15:
                dx = jax.jit(lambda x, k, dy, f=f: jax.vjp(lambda x: f(x, k), x)[1](dy))
                dk = jax.jit(lambda x, k, dy, f=f: jax.vjp(lambda k: f(x, k), k)[1](dy))
                row += [time_it(dx, x, kernel, dy), time_it(dk, x, kernel, dy)]
            figures = " ".join(f"{t:9.4f}" for t in row)
            print(f"{name:10} {h:4}x{h:<4}x{cin:6} {form:>10} {figures}", flush=True)


if __name__ == "__main__":
    main()

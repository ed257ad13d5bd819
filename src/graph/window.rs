//! Sliding windows over images: the index map of convolution and pooling.
//!
//! A convolution is a matrix product whose left operand is never written: its rows are the windows of an image. The
//! map is no strided [`View`](super::View), since where a window hangs over the edge depends on two coordinates at
//! once, and so it is a form of its own, read in place by every kind of kernel. Images are `[n, h, w, c]`, windows
//! `[n, rows, columns, kernel h, kernel w, c]`. Deliberately absent: more than two spatial axes, and holes between the
//! pixels of the image (`lhs dilation`): a strided convolution goes back by adding up what its windows cover.

/// Where the windows lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Windows {
    /// Height and width of the image.
    pub image: [usize; 2],
    /// Elements of a pixel.
    pub channels: usize,
    /// Pixels of a window.
    pub kernel: [usize; 2],
    /// Pixels from one window to the next.
    pub stride: [usize; 2],
    /// Pixels from one element of a window to the next.
    pub dilation: [usize; 2],
    /// How far the first window begins before the image; negative: within it.
    pub before: [isize; 2],
    /// Windows down and across.
    pub count: [usize; 2],
    /// The bits of what lies outside the image.
    pub outside: u32,
}

/// What is read through [`Windows`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Through {
    /// Windows out of an image: `[n, h, w, c]` as `[n, rows, columns, kh, kw, c]`.
    Cut,
    /// As `Cut`, out of an image that differs for each element of the window: `[n, h, w, kh, kw, c]`.
    Pick,
    /// The adjoint of `Pick`: for each pixel what the windows that cover it hold there, zero where none does;
    /// `[n, rows, columns, kh, kw, c]` as `[n, h, w, kh, kw, c]`. Summed over the kernel it is the adjoint of `Cut`.
    Lay,
    /// The adjoint of `Cut` where windows do not overlap: for each pixel what the one window that covers it holds there,
    /// zero where none does; `[n, rows, columns, kh, kw, c]` as `[n, h, w, c]`.
    Cover,
}

impl Windows {
    /// Elements of a window.
    pub fn elements(&self) -> usize {
        self.kernel[0] * self.kernel[1] * self.channels
    }

    /// Elements of all windows of one image.
    pub fn of_image(&self) -> usize {
        self.count[0] * self.count[1] * self.elements()
    }

    /// Elements of one image.
    pub fn pixels(&self) -> usize {
        self.image[0] * self.image[1] * self.channels
    }

    /// Whether some element of a window along `axis` may lie outside the image.
    pub fn overhangs(&self, axis: usize) -> bool {
        let last =
            (self.count[axis].max(1) - 1) * self.stride[axis] + (self.kernel[axis].max(1) - 1) * self.dilation[axis];
        self.before[axis] > 0 || last as isize - self.before[axis] >= self.image[axis] as isize
    }

    /// Whether no pixel is in two windows, and each window is whole.
    pub fn are_apart(&self) -> bool {
        (0..2).all(|axis| self.dilation[axis] == 1 && self.stride[axis] >= self.kernel[axis])
    }

    /// Whether some pixel along `axis` lies before the first window or behind the last.
    pub fn misses(&self, axis: usize) -> bool {
        let end = (self.count[axis] * self.stride[axis]) as isize;
        self.before[axis] < 0 || self.image[axis] as isize + self.before[axis] > end
    }

    /// The pixel along `axis` of element `k` of window `at`, if it is in the image.
    fn pixel(&self, axis: usize, at: usize, k: usize) -> Option<usize> {
        let pixel = (at * self.stride[axis] + k * self.dilation[axis]) as isize - self.before[axis];
        usize::try_from(pixel).ok().filter(|&pixel| pixel < self.image[axis])
    }

    /// The window along `axis` whose element `k` is this pixel, if there is one.
    fn window(&self, axis: usize, pixel: usize, k: usize) -> Option<usize> {
        let start = usize::try_from(pixel as isize + self.before[axis] - (k * self.dilation[axis]) as isize).ok()?;
        Some(start / self.stride[axis]).filter(|&at| start.is_multiple_of(self.stride[axis]) && at < self.count[axis])
    }

    /// The source element of element `at`; `None`: outside.
    pub fn source(&self, through: Through, at: usize) -> Option<usize> {
        if through == Through::Cover {
            let [h, w] = self.image;
            let (at, c) = (at / self.channels, at % self.channels);
            let (at, n) = (at % (h * w), at / (h * w));
            let find = |axis: usize, pixel: usize| {
                let at = usize::try_from(pixel as isize + self.before[axis]).ok()?;
                let (window, k) = (at / self.stride[axis], at % self.stride[axis]);
                (window < self.count[axis] && k < self.kernel[axis]).then_some((window, k))
            };
            let ((y, kh), (x, kw)) = (find(0, at / w)?, find(1, at % w)?);
            let row = (n * self.count[0] + y) * self.count[1] + x;
            return Some(((row * self.kernel[0] + kh) * self.kernel[1] + kw) * self.channels + c);
        }
        let (at, c) = (at / self.channels, at % self.channels);
        let (at, kw) = (at / self.kernel[1], at % self.kernel[1]);
        let (at, kh) = (at / self.kernel[0], at % self.kernel[0]);
        let grid = if through == Through::Lay { self.image } else { self.count };
        let (at, across) = (at / grid[1], at % grid[1]);
        let (n, down) = (at / grid[0], at % grid[0]);
        let join = |[h, w]: [usize; 2], [y, x]: [usize; 2]| (n * h + y) * w + x;
        let inside = |at: usize| ((at * self.kernel[0] + kh) * self.kernel[1] + kw) * self.channels + c;
        Some(match through {
            Through::Lay => inside(join(self.count, [self.window(0, down, kh)?, self.window(1, across, kw)?])),
            Through::Pick => inside(join(self.image, [self.pixel(0, down, kh)?, self.pixel(1, across, kw)?])),
            Through::Cut | Through::Cover => {
                join(self.image, [self.pixel(0, down, kh)?, self.pixel(1, across, kw)?]) * self.channels + c
            }
        })
    }
}

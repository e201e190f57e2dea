//! Sliding windows, for convolutions and pools.

use super::array::Array;
use super::cx::Cx;
use super::fault::{Fault, mismatch};
use super::sizes::{self, count, for_each, strides, work};

/// The largest kernel, stride, dilation or pad that is believed.
const LIMIT: i64 = 1 << 31;

/// The attributes of a window, one entry an axis.
pub(super) struct Window {
    pub kernel: Vec<usize>,
    pub strides: Vec<i64>,
    pub dilations: Vec<i64>,
    pads: Pads,
    ceil: bool,
}

enum Pads {
    /// All begins, then all ends.
    Stated(Vec<i64>),
    /// So that the result has `ceil(size / stride)` elements; the odd one behind, or before.
    Same { odd_behind: bool },
}

/// Where the windows of one axis begin.
struct Steps {
    /// How many windows there are.
    count: usize,
    /// Where the first begins, seen from the first element of the data.
    first: i64,
    stride: i64,
    dilation: i64,
}

impl Window {
    pub fn read(cx: &Cx<'_>, kernel: &[usize]) -> Result<Self, Fault> {
        let rank = kernel.len();
        let pads = match cx.string("auto_pad").unwrap_or("NOTSET") {
            "SAME_UPPER" => Pads::Same { odd_behind: true },
            "SAME_LOWER" => Pads::Same { odd_behind: false },
            "VALID" => Pads::Stated(vec![0; 2 * rank]),
            _ => Pads::Stated(list(cx, "pads", 2 * rank, 0)?),
        };
        if kernel.iter().any(|size| *size == 0 || *size as i64 > LIMIT) {
            return mismatch!("a kernel of {kernel:?}");
        }
        Ok(Window {
            kernel: kernel.to_vec(),
            strides: list(cx, "strides", rank, 1)?,
            dilations: list(cx, "dilations", rank, 1)?,
            pads,
            ceil: cx.flag("ceil_mode"),
        })
    }

    /// The elements that the kernel spans.
    fn extent(&self, axis: usize) -> i64 {
        (self.kernel[axis] as i64 - 1) * self.dilations[axis] + 1
    }

    /// The windows over so many elements.
    fn forward(&self, axis: usize, size: usize) -> Result<Steps, Fault> {
        let (size, extent, stride) = (size as i64, self.extent(axis), self.strides[axis]);
        let steps = |count: i64, first| Steps {
            count: count.max(0) as usize,
            first,
            stride,
            dilation: self.dilations[axis],
        };
        match &self.pads {
            Pads::Same { odd_behind } => {
                let count = (size + stride - 1) / stride;
                let total = ((count - 1) * stride + extent - size).max(0);
                Ok(steps(count, -shared(total, *odd_behind)))
            }
            Pads::Stated(pads) => {
                let (begin, end) = (pads[axis], pads[axis + self.kernel.len()]);
                let span = size + begin + end - extent;
                if span < 0 {
                    return mismatch!("a window of {extent} over {size} elements");
                }
                let mut count = span / stride + 1;
                // Rounded up, but a window starts within the data or the padding before it.
                if self.ceil && span % stride != 0 && count * stride < size + begin {
                    count += 1;
                }
                Ok(steps(count, -begin))
            }
        }
    }

    /// The windows of a convolution whose transposed has so many elements as its operand, and the
    /// size of its result.
    fn transposed(
        &self,
        axis: usize,
        size: usize,
        extra: i64,
        stated: Option<i64>,
    ) -> Result<(Steps, usize), Fault> {
        let stride = self.strides[axis];
        let whole = stride * (size as i64 - 1).max(0) + extra + self.extent(axis);
        let (begin, result) = match (&self.pads, stated) {
            (Pads::Stated(pads), None) => {
                let (begin, end) = (pads[axis], pads[axis + self.kernel.len()]);
                (begin, whole - begin - end)
            }
            (Pads::Stated(_), Some(result)) => {
                (shared(whole.saturating_sub(result).max(0), false), result)
            }
            (Pads::Same { odd_behind }, stated) => {
                let result = stated.unwrap_or(size as i64 * stride);
                (
                    shared(whole.saturating_sub(result).max(0), *odd_behind),
                    result,
                )
            }
        };
        let steps = Steps {
            count: size,
            first: -begin,
            stride,
            dilation: self.dilations[axis],
        };
        Ok((steps, sizes::size(result)?))
    }

    /// The windows over data of these sizes.
    pub fn taps(&self, data: &[usize]) -> Result<Taps, Fault> {
        let steps: Result<Vec<Steps>, Fault> = data
            .iter()
            .enumerate()
            .map(|(axis, size)| self.forward(axis, *size))
            .collect();
        self.taps_of(&steps?, data)
    }

    /// The windows that a transposed convolution adds up in, and the sizes of its result.
    pub fn transposed_taps(
        &self,
        cx: &Cx<'_>,
        data: &[usize],
    ) -> Result<(Taps, Vec<usize>), Fault> {
        let extra = list(cx, "output_padding", data.len(), 0)?;
        let stated = cx
            .ints("output_shape")
            .filter(|sizes| sizes.len() >= data.len());
        let stated = stated.map(|sizes| &sizes[sizes.len() - data.len()..]);
        let (mut steps, mut result) = (Vec::new(), Vec::new());
        for (axis, size) in data.iter().enumerate() {
            let stated = stated.map(|sizes| sizes[axis]);
            let (step, size) = self.transposed(axis, *size, extra[axis], stated)?;
            steps.push(step);
            result.push(size);
        }
        Ok((self.taps_of(&steps, &result)?, result))
    }

    fn taps_of(&self, steps: &[Steps], data: &[usize]) -> Result<Taps, Fault> {
        let dims: Vec<usize> = steps.iter().map(|steps| steps.count).collect();
        let (windows, len) = (count(&dims)?, count(&self.kernel)?);
        work(&[windows, len])?;
        count(&[windows, len])?;
        count(data)?;
        let own = strides(data);
        let mut positions = Vec::with_capacity(windows * len);
        let mut padded = Vec::with_capacity(windows);
        for_each(&dims, |window| {
            let mut inside = 0;
            for_each(&self.kernel, |at| {
                let mut source = Some(0);
                let mut in_padding = true;
                for (axis, steps) in steps.iter().enumerate() {
                    let place = steps.first
                        + window[axis] as i64 * steps.stride
                        + at[axis] as i64 * steps.dilation;
                    let index = usize::try_from(place)
                        .ok()
                        .filter(|index| *index < data[axis]);
                    source = source
                        .zip(index)
                        .map(|(sum, index)| sum + index * own[axis]);
                    in_padding &= self.reaches(axis, place, data[axis]);
                }
                positions.push(source);
                inside += usize::from(in_padding);
                Ok(())
            })?;
            padded.push(inside);
            Ok(())
        })?;
        Ok(Taps {
            dims,
            positions,
            len,
            padded,
        })
    }

    /// Whether a place is in the data or in its padding, which ends where it is stated to.
    fn reaches(&self, axis: usize, place: i64, size: usize) -> bool {
        match &self.pads {
            Pads::Stated(pads) => place < size as i64 + pads[axis + self.kernel.len()],
            Pads::Same { .. } => true,
        }
    }
}

/// Half of the padding, with the odd element before unless it is behind.
fn shared(total: i64, odd_behind: bool) -> i64 {
    if odd_behind {
        total / 2
    } else {
        total - total / 2
    }
}

/// Every window with the elements that it covers.
pub(super) struct Taps {
    /// How many windows there are along each axis.
    pub dims: Vec<usize>,
    /// Flat positions in the data's space, window by window; `None` in the padding.
    positions: Vec<Option<usize>>,
    /// Elements of the kernel.
    len: usize,
    /// Elements of each window that lie in the data or its padding.
    pub padded: Vec<usize>,
}

impl Taps {
    /// What each window covers, in the order of the kernel.
    pub fn windows(&self) -> impl Iterator<Item = &[Option<usize>]> {
        self.positions.chunks_exact(self.len)
    }
}

/// A list attribute of one entry an axis, or its default.
pub(super) fn list(cx: &Cx<'_>, name: &str, count: usize, default: i64) -> Result<Vec<i64>, Fault> {
    let Some(values) = cx.ints(name) else {
        return Ok(vec![default; count]);
    };
    if values.len() != count {
        return mismatch!("{} entries in `{name}`, {count} are needed", values.len());
    }
    let least = if default == 1 { 1 } else { -LIMIT };
    match values.iter().find(|value| !(least..LIMIT).contains(*value)) {
        Some(value) => mismatch!("{value} in `{name}`"),
        None => Ok(values.to_vec()),
    }
}

/// `kernel_shape`, or the sizes of the weight behind its first two axes.
pub(super) fn kernel(cx: &Cx<'_>, weight: &Array) -> Result<Vec<usize>, Fault> {
    let own = weight.dims().get(2..).unwrap_or_default();
    match cx.ints("kernel_shape") {
        Some(stated) if sizes::sizes(stated)? != own => {
            mismatch!(
                "`kernel_shape` {stated:?} and a weight of {:?}",
                weight.dims()
            )
        }
        _ => Ok(own.to_vec()),
    }
}

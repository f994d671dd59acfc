//! Products of a matrix with blocks, in safe code that the compiler turns into vector instructions of any processor.
//!
//! A block times a constant is a sum of that block's doubles, one for each bit of the constant. So a row of the product
//! is, from its highest bit on: double, and add the blocks whose constants have that bit. Four blocks have 16 sums,
//! which are made once and serve every row and bit: nothing is looked up by what the data is.

/// Bytes of each block that are worked on at a time: sums of 16 blocks stay in the first cache.
const WIDTH: usize = 192;
/// Blocks whose sums stand in one table.
const GROUP: usize = 4;

type Column = [u8; WIDTH];

/// A matrix, made ready to be multiplied with blocks.
#[derive(Clone, Debug)]
pub(crate) struct Product {
    groups: usize,
    /// For each row, from the highest bit to the lowest, for each group: which of its blocks have that bit.
    selections: Vec<u8>,
}

impl Product {
    /// The matrix with these rows, all of one length.
    pub(super) fn new(rows: &[Vec<u8>]) -> Self {
        let inputs = rows.first().map_or(0, Vec::len);
        let mut selections = Vec::new();
        for row in rows {
            for bit in (0..8).rev() {
                selections.extend(row.chunks(GROUP).map(|group| {
                    let bits = group.iter().enumerate().map(|(at, factor)| ((factor >> bit) & 1) << at);
                    bits.fold(0, |all, one| all | one)
                }));
            }
        }
        Self { groups: inputs.div_ceil(GROUP), selections }
    }

    /// Adds the product with `inputs` to `outputs`, one for each row. All blocks are of one length.
    pub(crate) fn add(&self, inputs: &[&[u8]], outputs: &mut [Vec<u8>]) {
        let length = outputs.first().map_or(0, Vec::len);
        let mut tables = vec![[[0; WIDTH]; 1 << GROUP]; self.groups];
        for begin in (0..length).step_by(WIDTH) {
            let end = begin.saturating_add(WIDTH).min(length);
            for (group, table) in inputs.chunks(GROUP).zip(&mut tables) {
                fill(table, group, begin, end);
            }
            let row_length = self.groups.saturating_mul(8).max(1);
            for (selections, output) in self.selections.chunks(row_length).zip(&mut *outputs) {
                let sum = row(&tables, selections, self.groups);
                if let Some(output) = output.get_mut(begin..end) {
                    output.iter_mut().zip(&sum).for_each(|(byte, of_sum)| *byte ^= of_sum);
                }
            }
        }
    }
}

/// Every sum of the blocks of a group, by which of them are in it.
fn fill(table: &mut [Column; 1 << GROUP], group: &[&[u8]], begin: usize, end: usize) {
    for (at, input) in group.iter().enumerate() {
        let mut column = [0; WIDTH];
        if let Some(bytes) = input.get(begin..end)
            && let Some(column) = column.get_mut(..bytes.len())
        {
            column.copy_from_slice(bytes);
        }
        let Some((without, with)) = table.split_at_mut_checked(1 << at) else { return };
        for (without, with) in without.iter().zip(with) {
            for ((sum, rest), byte) in with.iter_mut().zip(without).zip(&column) {
                *sum = rest ^ byte;
            }
        }
    }
}

/// One row of the product.
fn row(tables: &[[Column; 1 << GROUP]], selections: &[u8], groups: usize) -> Column {
    let mut sum = [0; WIDTH];
    for selections in selections.chunks(groups.max(1)) {
        for byte in &mut sum {
            *byte = super::field::double(*byte);
        }
        for (table, selection) in tables.iter().zip(selections) {
            if let Some(column) = table.get(usize::from(*selection)) {
                sum.iter_mut().zip(column).for_each(|(byte, of_column)| *byte ^= of_column);
            }
        }
    }
    sum
}

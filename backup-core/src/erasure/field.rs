//! GF(2^8) with the polynomial x^8 + x^4 + x^3 + x^2 + 1 (0x11D).

/// Product of two elements.
pub(super) fn multiply(left: u8, right: u8) -> u8 {
    let mut power = left;
    let mut sum = 0;
    for bit in 0..8 {
        if (right >> bit) & 1 == 1 {
            sum ^= power;
        }
        power = double(power);
    }
    sum
}

/// The element times x.
pub(super) const fn double(element: u8) -> u8 {
    (element << 1) ^ if element >= 128 { 0x1d } else { 0 }
}

/// The quotient; 0 where the divisor is 0.
pub(super) fn divide(dividend: u8, divisor: u8) -> u8 {
    // The 254th power is the inverse: 254 = 2 + 4 + 8 + 16 + 32 + 64 + 128.
    let mut square = multiply(divisor, divisor);
    let mut inverse = square;
    for _ in 0..6 {
        square = multiply(square, square);
        inverse = multiply(inverse, square);
    }
    multiply(dividend, inverse)
}

/// The inverse of a square matrix; `None` where it has none.
pub(super) fn inverse(mut matrix: Vec<Vec<u8>>) -> Option<Vec<Vec<u8>>> {
    let size = matrix.len();
    let mut unit: Vec<Vec<u8>> =
        (0..size).map(|row| (0..size).map(|column| u8::from(row == column)).collect()).collect();
    for at in 0..size {
        let pivot = (at..size).find(|row| element(&matrix, *row, at) != Some(0))?;
        matrix.swap(at, pivot);
        unit.swap(at, pivot);
        let factor = divide(1, element(&matrix, at, at)?);
        for rows in [&mut matrix, &mut unit] {
            rows.get_mut(at)?.iter_mut().for_each(|item| *item = multiply(*item, factor));
        }
        let (line, unit_line) = (matrix.get(at)?.clone(), unit.get(at)?.clone());
        for (number, (row, unit_row)) in matrix.iter_mut().zip(&mut unit).enumerate() {
            let factor = *row.get(at)?;
            if number == at || factor == 0 {
                continue;
            }
            for (row, line) in [(row, &line), (unit_row, &unit_line)] {
                row.iter_mut().zip(line).for_each(|(item, of_line)| *item ^= multiply(*of_line, factor));
            }
        }
    }
    Some(unit)
}

fn element(matrix: &[Vec<u8>], row: usize, column: usize) -> Option<u8> {
    matrix.get(row)?.get(column).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_a_field() {
        for a in 0..=255u8 {
            assert_eq!((multiply(a, 1), multiply(a, 0), multiply(1, a)), (a, 0, a));
            assert_eq!(multiply(a, divide(1, a)), u8::from(a != 0));
            for b in 0..=255u8 {
                assert_eq!(multiply(a, b), multiply(b, a));
                let c = a.rotate_left(3) ^ 0x5a;
                assert_eq!(multiply(a, b ^ c), multiply(a, b) ^ multiply(a, c));
                assert_eq!(multiply(multiply(a, b), c), multiply(a, multiply(b, c)));
            }
        }
        // x is a generator: its powers are all elements but 0.
        let mut power = 1;
        let order = (1..=255).find(|_| {
            power = double(power);
            power == 1
        });
        assert_eq!(order, Some(255));
        assert_eq!(multiply(0x80, 2), 0x1d);
    }

    #[test]
    fn inverts() {
        let matrix = vec![vec![0, 3, 1], vec![2, 0, 0], vec![7, 1, 9]];
        let inverse = inverse(matrix.clone()).unwrap();
        for (number, row) in matrix.iter().enumerate() {
            for column in 0..3 {
                let terms = row.iter().zip(&inverse);
                let sum = terms.fold(0, |sum, (factor, line)| sum ^ multiply(*factor, line[column]));
                assert_eq!(sum, u8::from(number == column));
            }
        }
        assert!(super::inverse(vec![vec![1, 1], vec![1, 1]]).is_none());
    }
}

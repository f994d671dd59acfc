use std::sync::atomic::{AtomicU64, Ordering};

use super::environment::Control;
use super::parallel::{for_each, start, with_queue};
use crate::error::Error;
use crate::sync::{GRANTED, thread};

fn control(threads: usize) -> Control {
    Control::default().with_threads(threads)
}

#[test]
fn fewer_threads_than_wanted_do_the_same() {
    for granted in [0, 1, 2] {
        GRANTED.set(granted);
        assert_eq!(thread::scope(|scope| start(scope, 3, || || ())), granted);
        GRANTED.set(granted);
        every_job_runs_once();
        GRANTED.set(usize::MAX);
    }
}

#[test]
fn every_job_runs_once() {
    for threads in [1, 2, 7] {
        let sum = AtomicU64::new(0);
        with_queue(&control(threads), 2, &|| Ok(()), |queue| {
            for number in 0..1000u64 {
                let sum = &sum;
                queue.submit(Box::new(move |()| {
                    sum.fetch_add(number, Ordering::Relaxed);
                    Ok(())
                }))?;
            }
            Ok(())
        })
        .unwrap();
        assert_eq!(sum.into_inner(), 499_500, "{threads} threads");
        let sum = AtomicU64::new(0);
        for_each(&control(threads), 1000, &|| Ok(()), &|(), item| {
            sum.fetch_add(item as u64, Ordering::Relaxed);
            Ok(())
        })
        .unwrap();
        assert_eq!(sum.into_inner(), 499_500, "{threads} threads");
    }
}

#[test]
fn the_first_error_ends_everything_and_is_returned() {
    for threads in [1, 3] {
        let result = with_queue(&control(threads), 2, &|| Ok(()), |queue| {
            for number in 0..10_000 {
                queue.submit(Box::new(
                    move |()| {
                        if number == 5 { Err(Error::invalid("job", "five")) } else { Ok(()) }
                    },
                ))?;
            }
            Ok(())
        });
        assert_eq!(result.unwrap_err().kind(), crate::ErrorKind::InvalidArgument, "{threads}");
    }
}

#[test]
fn workers_that_cannot_start_do_not_hang_the_producer() {
    let result = with_queue(&control(2), 1, &|| Err::<(), _>(Error::Internal("no worker")), |queue| {
        for _ in 0..100 {
            queue.submit(Box::new(|()| Ok(())))?;
        }
        Ok(())
    });
    assert_eq!(result.unwrap_err().kind(), crate::ErrorKind::Internal);
}

#[test]
fn cancelling_stops() {
    let cancel = crate::progress::CancelToken::new();
    let control = control(2).with_cancel(cancel.clone());
    let result = with_queue(&control, 1, &|| Ok(()), |queue| {
        for number in 0..1000 {
            if number == 10 {
                cancel.cancel();
            }
            queue.submit(Box::new(|()| Ok(())))?;
        }
        Ok(())
    });
    assert_eq!(result.unwrap_err().kind(), crate::ErrorKind::Cancelled);
}

//! Opens and closes one device on a thread of its own: a driver may take long for either, and the
//! engine's task must not wait for it.

use std::{io, sync::Arc, time::Duration};

use crate::media::{Slot, Stop, Worker};

/// How long dropping a slot waits for its device: longer than a device takes to close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// How long the thread of a slot waits at once. Any time would do: it is woken.
const WAIT: Duration = Duration::from_secs(3600);

/// One device that is open or closed. Its calls never wait.
///
/// A device is opened after the one before it is closed: both may be the same, which may allow only
/// one user. If a close hangs, only the newest request waits for it. Dropping the slot closes the
/// device and waits for that, three seconds at most.
pub(super) struct DeviceSlot<T> {
    name: &'static str,
    is_open: bool,
    thread: Option<SlotThread<T>>,
}

struct SlotThread<T> {
    next: Arc<Slot<Request<T>>>,
    /// Filled when the thread ends.
    ended: Arc<Slot<()>>,
    worker: Worker,
}

enum Request<T> {
    /// Close the device, then open another.
    Open(Box<dyn FnOnce() -> Option<T> + Send>),
    /// Close the device, then report it.
    Close(Box<dyn FnOnce() + Send>),
    /// Close the device and end the thread.
    End,
}

impl<T: 'static> DeviceSlot<T> {
    /// A slot without a device; the name is that of its thread.
    pub(super) const fn new(name: &'static str) -> Self {
        Self { name, is_open: false, thread: None }
    }

    /// Whether the newest request is one to open a device.
    pub(super) const fn is_open(&self) -> bool {
        self.is_open
    }

    /// Calls `open` on the slot's thread, after the device before is closed.
    ///
    /// # Errors
    /// If the system cannot create the thread. The slot stays closed.
    pub(super) fn open(
        &mut self,
        open: impl FnOnce() -> Option<T> + Send + 'static,
    ) -> io::Result<()> {
        let thread = match self.thread.take() {
            Some(thread) => thread,
            None => SlotThread::start(self.name)?,
        };
        self.is_open = true;
        self.thread.insert(thread).next.put(Request::Open(Box::new(open)));
        Ok(())
    }

    /// Closes the device. `closed` is called when it is, unless another one is opened meanwhile.
    pub(super) fn close(&mut self, closed: impl FnOnce() + Send + 'static) {
        self.is_open = false;
        match &self.thread {
            Some(thread) => thread.next.put(Request::Close(Box::new(closed))),
            None => closed(),
        }
    }
}

impl<T> Drop for DeviceSlot<T> {
    fn drop(&mut self) {
        let Some(SlotThread { next, ended, worker }) = self.thread.take() else { return };
        next.put(Request::End);
        if ended.wait(CLOSE_TIMEOUT).is_none() {
            worker.abandon();
        }
    }
}

impl<T: 'static> SlotThread<T> {
    fn start(name: &'static str) -> io::Result<Self> {
        let (next, ended) = (Arc::new(Slot::default()), Arc::new(Slot::default()));
        let (requests, end) = (Arc::clone(&next), FillOnDrop(Arc::clone(&ended)));
        let work = move |_: &Stop| serve(&requests, &end);
        // The supervisor logs a panic, and goes on with the next request.
        let worker = Worker::spawn_supervised(name, work, |_| ())?;
        Ok(Self { next, ended, worker })
    }
}

/// Fills the slot when the thread that holds it ends.
struct FillOnDrop(Arc<Slot<()>>);

impl Drop for FillOnDrop {
    fn drop(&mut self) {
        self.0.put(());
    }
}

fn serve<T>(requests: &Slot<Request<T>>, _end: &FillOnDrop) {
    let mut device = None;
    loop {
        match requests.wait(WAIT) {
            Some(Request::Open(open)) => {
                drop(device.take());
                device = open();
            }
            Some(Request::Close(closed)) => {
                drop(device.take());
                closed();
            }
            Some(Request::End) => return,
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(20);

    /// A device whose close takes until the channel is closed, and that is then noted.
    struct FakeDevice {
        hang: Receiver<()>,
        log: Sender<&'static str>,
    }

    impl Drop for FakeDevice {
        fn drop(&mut self) {
            self.log.send("closing").unwrap();
            let _ = self.hang.recv();
            self.log.send("closed").unwrap();
        }
    }

    #[test]
    fn a_close_that_hangs_delays_only_the_device_that_is_opened_next() {
        let (log, entries) = channel();
        let next = || entries.recv_timeout(TIMEOUT).unwrap();
        let mut slot = DeviceSlot::new("test device");
        let open = |slot: &mut DeviceSlot<FakeDevice>, name| {
            let ((release, hang), log) = (channel(), log.clone());
            slot.open(move || {
                log.send(name).unwrap();
                Some(FakeDevice { hang, log })
            })
            .unwrap();
            release
        };
        let release = open(&mut slot, "first opened");
        assert_eq!(next(), "first opened");
        let closed = log.clone();
        slot.close(move || closed.send("reported").unwrap());
        assert_eq!(next(), "closing");
        // It hangs. Of the requests that wait for it, only the newest is carried out.
        drop(open(&mut slot, "second opened"));
        drop(open(&mut slot, "third opened"));
        assert!(slot.is_open() && entries.try_recv().is_err(), "the calls do not wait");
        drop(release);
        assert_eq!([next(), next(), next()], ["closed", "reported", "third opened"]);
        drop(open(&mut slot, "fourth opened"));
        assert_eq!([next(), next(), next()], ["closing", "closed", "fourth opened"]);
        drop(slot);
        assert_eq!([next(), next()], ["closing", "closed"]);
    }
}

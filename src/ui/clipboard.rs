//! The system clipboard, used off the window's thread.
//!
//! The content belongs to another program, which delivers it when it likes. A program that hangs
//! would make the window hang too. So egui's own clipboard feature is off, and this module takes
//! its place: paste shortcuts and the middle button request the text, a thread reads it, and the
//! text enters egui's input as if it had been available at once.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
        mpsc::{self, Receiver, TryRecvError},
    },
    time::Duration,
};

use eframe::egui::{
    Context, Event, Id, Key, Modifiers, OutputCommand, PointerButton, Pos2, RawInput,
};

use crate::media::{Slot, Worker};

/// How long a paste blocks the window for its text. A responsive program answers in a tenth of
/// that, and text that is typed next follows the pasted text.
const SYNC_TIMEOUT: Duration = Duration::from_millis(50);

/// How long a text may take, in seconds. A later paste would surprise the user.
const PASTE_TIMEOUT: f64 = 3.0;

/// How many reader threads may wait for programs that do not answer.
const MAX_READERS: usize = 4;

/// How long closing the window waits for the clipboard to be handed over.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

/// Where a text is copied to and pasted from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Selection {
    /// The clipboard: text that the user copied.
    Clipboard,
    /// The primary selection: the last selected text, pasted by the middle button on X11 and
    /// Wayland.
    Primary,
}

/// A system clipboard. Its calls block until another program answers.
pub(crate) trait ClipboardBackend: Send + Sync {
    /// Reads the text.
    fn read(&self, from: Selection) -> Option<String>;
    /// Writes a text.
    fn write(&self, to: Selection, text: String);
    /// Hands the content over to the program that keeps it after this one has exited.
    fn close(&self);
}

/// The clipboard as the window uses it.
pub(crate) struct Clipboard {
    backend: Arc<dyn ClipboardBackend>,
    readers: Arc<AtomicUsize>,
    pending_pastes: VecDeque<PendingPaste>,
    pending_copies: Arc<PendingCopies>,
}

/// The newest texts to copy, for [`Selection::Clipboard`] and [`Selection::Primary`].
#[derive(Default)]
struct PendingCopies {
    texts: [Slot<String>; 2],
    /// Locked from taking a text until it is written, so that an older text never overwrites a
    /// newer one.
    writing: Mutex<()>,
}

impl PendingCopies {
    fn write(&self, to: Selection, system: &dyn ClipboardBackend) {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(text) = self.texts[to as usize].take() {
            system.write(to, text);
        }
    }
}

/// A paste whose text has not arrived.
struct PendingPaste {
    answer: Receiver<Option<String>>,
    paste: PasteTrigger,
    /// The widget that had the focus. A late text is dropped if the focus has moved.
    focus: Option<Id>,
    /// When the paste times out, in seconds of egui's clock.
    until: f64,
}

/// Counts a reader thread for as long as it lives.
struct ReaderPermit(Arc<AtomicUsize>);

impl ReaderPermit {
    /// Counts one more reader, unless the maximum is reached.
    fn acquire(readers: &Arc<AtomicUsize>) -> Option<Self> {
        let incremented = |count: usize| (count < MAX_READERS).then_some(count + 1);
        let counted = readers.fetch_update(Ordering::AcqRel, Ordering::Acquire, incremented);
        counted.is_ok().then(|| Self(Arc::clone(readers)))
    }
}

impl Drop for ReaderPermit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What requested a text.
#[derive(Clone, Copy)]
enum PasteTrigger {
    ByKey,
    ByMiddleButton(Pos2),
}

impl PasteTrigger {
    fn event(self, text: String) -> Event {
        match self {
            Self::ByKey => Event::Paste(text),
            Self::ByMiddleButton(pos) => Event::MiddleClickPaste { pos, text },
        }
    }
}

impl Clipboard {
    /// Uses this system clipboard.
    pub(crate) fn new(backend: Arc<dyn ClipboardBackend>) -> Self {
        Self {
            backend,
            readers: Arc::default(),
            pending_pastes: VecDeque::new(),
            pending_copies: Arc::default(),
        }
    }

    /// Turns key events into copy, cut and paste events, and adds the texts that have arrived.
    /// Returns whether a paste timed out.
    pub(crate) fn process_input(&mut self, ctx: &Context, input: &mut RawInput) -> bool {
        let now = input.time.unwrap_or_else(|| ctx.input(|input| input.time));
        let mut events = vec![];
        let is_late = self.collect_texts(ctx, now, &mut events);
        for event in std::mem::take(&mut input.events) {
            match clipboard_input(&event) {
                ClipboardInput::None => events.push(event),
                ClipboardInput::Copy => events.push(Event::Copy),
                ClipboardInput::Cut => events.push(Event::Cut),
                ClipboardInput::Paste => {
                    self.request_text(ctx, now, PasteTrigger::ByKey, &mut events)
                }
                ClipboardInput::PasteSelection(pos) => {
                    events.push(event);
                    self.request_text(ctx, now, PasteTrigger::ByMiddleButton(pos), &mut events);
                }
            }
        }
        input.events = events;
        is_late
    }

    /// Takes the texts to copy out of egui's output.
    pub(crate) fn take_copies(&self, ctx: &Context) {
        let commands = ctx.output_mut(|output| std::mem::take(&mut output.commands));
        let mut others = vec![];
        for command in commands {
            match command {
                OutputCommand::CopyText(text) => self.copy(Selection::Clipboard, text),
                OutputCommand::TextSelectionSettled(text) => self.copy(Selection::Primary, text),
                OutputCommand::CopyImage(_) | OutputCommand::OpenUrl(_) => others.push(command),
            }
        }
        ctx.output_mut(|output| output.commands = others);
    }

    /// Copies a text. Of two copies in quick succession the newer one wins.
    fn copy(&self, to: Selection, text: String) {
        let (copied, system) = (Arc::clone(&self.pending_copies), Arc::clone(&self.backend));
        copied.texts[to as usize].put(text);
        spawn_detached("clipboard copy", move || copied.write(to, &*system));
    }

    /// Requests a text, and waits shortly for it.
    fn request_text(
        &mut self,
        ctx: &Context,
        now: f64,
        paste: PasteTrigger,
        events: &mut Vec<Event>,
    ) {
        let Some(reader) = ReaderPermit::acquire(&self.readers) else { return };
        let from = match paste {
            PasteTrigger::ByKey => Selection::Clipboard,
            PasteTrigger::ByMiddleButton(_) => Selection::Primary,
        };
        let (sender, answer) = mpsc::sync_channel(1);
        let (system, reader_ctx) = (Arc::clone(&self.backend), ctx.clone());
        spawn_detached("clipboard read", move || {
            let text = system.read(from);
            drop(reader);
            // The paste may have timed out meanwhile.
            sender.send(text).ok();
            reader_ctx.request_repaint();
        });
        match answer.recv_timeout(SYNC_TIMEOUT) {
            Ok(text) => events.extend(text.and_then(normalized).map(|text| paste.event(text))),
            Err(_) => {
                let focus = ctx.memory(|memory| memory.focused());
                self.pending_pastes.push_back(PendingPaste {
                    answer,
                    paste,
                    focus,
                    until: now + PASTE_TIMEOUT,
                });
                ctx.request_repaint_after(Duration::from_secs_f64(PASTE_TIMEOUT));
            }
        }
    }

    /// Adds the texts that have arrived. Returns whether a paste timed out.
    fn collect_texts(&mut self, ctx: &Context, now: f64, events: &mut Vec<Event>) -> bool {
        let focus = ctx.memory(|memory| memory.focused());
        let mut is_late = false;
        self.pending_pastes.retain(|paste| match paste.answer.try_recv() {
            Ok(text) => {
                let text = text.and_then(normalized).filter(|_| paste.focus == focus);
                events.extend(text.map(|text| paste.paste.event(text)));
                false
            }
            Err(TryRecvError::Disconnected) => false,
            Err(TryRecvError::Empty) => {
                let is_expired = paste.until <= now;
                is_late |= is_expired;
                !is_expired
            }
        });
        is_late
    }

    /// Writes the last copies and closes the clipboard. The copied text stays available where the
    /// system keeps it. Blocks for half a second at most, because the window is closing.
    pub(crate) fn close(&self) {
        let (system, copied) = (Arc::clone(&self.backend), Arc::clone(&self.pending_copies));
        let (done, closed) = mpsc::sync_channel(1);
        spawn_detached("clipboard close", move || {
            copied.write(Selection::Clipboard, &*system);
            copied.write(Selection::Primary, &*system);
            system.close();
            done.send(()).ok();
        });
        if closed.recv_timeout(CLOSE_TIMEOUT).is_err() {
            tracing::warn!("the clipboard was not handed over in time");
        }
    }
}

/// Runs work that may never return, on a detached thread.
fn spawn_detached(name: &str, work: impl FnOnce() + Send + 'static) {
    match Worker::spawn(name, |_| work()) {
        Ok(worker) => worker.abandon(),
        Err(error) => tracing::warn!(%error, "no thread for the clipboard"),
    }
}

/// A text with `\n` line ends, as a text box needs it. `None` if it is empty.
fn normalized(text: String) -> Option<String> {
    let text = text.replace("\r\n", "\n");
    (!text.is_empty()).then_some(text)
}

/// What an input event means for the clipboard.
#[derive(Clone, Copy, PartialEq, Debug)]
enum ClipboardInput {
    None,
    Copy,
    Cut,
    Paste,
    PasteSelection(Pos2),
}

fn clipboard_input(event: &Event) -> ClipboardInput {
    if let Event::PointerButton { pos, button: PointerButton::Middle, pressed: true, .. } = event {
        return ClipboardInput::PasteSelection(*pos);
    }
    let Event::Key { key, pressed: true, modifiers, .. } = event else {
        return ClipboardInput::None;
    };
    let Modifiers { command, ctrl, shift, .. } = *modifiers;
    // Insert and Delete as in IBM's Common User Access, which Windows and most toolkits follow.
    let keys = [
        (ClipboardInput::Copy, *key == Key::Copy || command && *key == Key::C),
        (ClipboardInput::Copy, ctrl && !shift && *key == Key::Insert),
        (ClipboardInput::Cut, *key == Key::Cut || command && *key == Key::X),
        (ClipboardInput::Cut, shift && !ctrl && *key == Key::Delete),
        (ClipboardInput::Paste, *key == Key::Paste || command && *key == Key::V),
        (ClipboardInput::Paste, shift && !ctrl && *key == Key::Insert),
    ];
    keys.into_iter().find(|(_, is)| *is).map_or(ClipboardInput::None, |(meaning, _)| meaning)
}

/// The clipboard of this machine.
#[derive(Default)]
pub(crate) struct SystemClipboard {
    /// On X11 and Wayland a copied text is available only while the program that copied it serves
    /// it. This object serves it.
    owned: Mutex<Option<arboard::Clipboard>>,
}

impl SystemClipboard {
    fn lock_owned(&self) -> MutexGuard<'_, Option<arboard::Clipboard>> {
        self.owned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClipboardBackend for SystemClipboard {
    fn read(&self, from: Selection) -> Option<String> {
        // A new connection for each read: a program that hangs does not block the next read.
        let text = arboard::Clipboard::new().and_then(|mut clipboard| get(&mut clipboard, from));
        text.inspect_err(|error| tracing::debug!(%error, "the clipboard has no text")).ok()
    }

    fn write(&self, to: Selection, text: String) {
        let mut held = self.lock_owned();
        let done = match held.take().map_or_else(arboard::Clipboard::new, Ok) {
            Ok(clipboard) => set(held.insert(clipboard), to, text),
            Err(error) => Err(error),
        };
        if let Err(error) = done {
            tracing::warn!(%error, "the text was not copied");
        }
    }

    fn close(&self) {
        drop(self.lock_owned().take());
    }
}

#[cfg(target_os = "linux")]
const fn kind(selection: Selection) -> arboard::LinuxClipboardKind {
    match selection {
        Selection::Clipboard => arboard::LinuxClipboardKind::Clipboard,
        Selection::Primary => arboard::LinuxClipboardKind::Primary,
    }
}

#[cfg(target_os = "linux")]
fn get(clipboard: &mut arboard::Clipboard, from: Selection) -> Result<String, arboard::Error> {
    use arboard::GetExtLinux as _;
    clipboard.get().clipboard(kind(from)).text()
}

#[cfg(target_os = "linux")]
fn set(
    clipboard: &mut arboard::Clipboard,
    to: Selection,
    text: String,
) -> Result<(), arboard::Error> {
    use arboard::SetExtLinux as _;
    clipboard.set().clipboard(kind(to)).text(text)
}

#[cfg(not(target_os = "linux"))]
fn get(clipboard: &mut arboard::Clipboard, from: Selection) -> Result<String, arboard::Error> {
    match from {
        Selection::Clipboard => clipboard.get_text(),
        Selection::Primary => Err(arboard::Error::ClipboardNotSupported),
    }
}

#[cfg(not(target_os = "linux"))]
fn set(
    clipboard: &mut arboard::Clipboard,
    to: Selection,
    text: String,
) -> Result<(), arboard::Error> {
    match to {
        Selection::Clipboard => clipboard.set_text(text),
        Selection::Primary => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A clipboard whose owner answers when the test lets it.
    #[derive(Default)]
    struct FakeBackend {
        text: Mutex<String>,
        /// Reads block while the test holds this lock.
        owner: Mutex<()>,
    }

    impl ClipboardBackend for FakeBackend {
        fn read(&self, _: Selection) -> Option<String> {
            drop(self.owner.lock());
            Some(self.text.lock().unwrap().clone())
        }

        fn write(&self, _: Selection, text: String) {
            *self.text.lock().unwrap() = text;
        }

        fn close(&self) {
            drop(self.owner.lock());
        }
    }

    fn press(key: Key, modifiers: Modifiers) -> Event {
        Event::Key { key, physical_key: None, pressed: true, repeat: false, modifiers }
    }

    fn paste() -> Event {
        press(Key::V, Modifiers::COMMAND)
    }

    fn feed(clipboard: &mut Clipboard, now: f64, events: Vec<Event>) -> (Vec<Event>, bool) {
        let mut input = RawInput { time: Some(now), events, ..RawInput::default() };
        let is_late = clipboard.process_input(&Context::default(), &mut input);
        (input.events, is_late)
    }

    /// Waits for a late text. Panics if none arrives.
    fn answer(clipboard: &mut Clipboard) -> Vec<Event> {
        for _ in 0..6000 {
            let (events, _) = feed(clipboard, 0.0, vec![]);
            if !events.is_empty() {
                return events;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("no text arrived");
    }

    /// Pastes, and waits if the text does not arrive at once.
    fn text_of(clipboard: &mut Clipboard, event: Event) -> Vec<Event> {
        let (events, _) = feed(clipboard, 0.0, vec![event]);
        if events.is_empty() { answer(clipboard) } else { events }
    }

    #[test]
    fn an_owner_that_hangs_blocks_no_input_and_its_text_arrives_later() {
        let system =
            Arc::new(FakeBackend { text: "a link".to_owned().into(), ..FakeBackend::default() });
        let mut clipboard = Clipboard::new(Arc::clone(&system) as Arc<dyn ClipboardBackend>);
        let hangs = system.owner.lock().unwrap();
        let key = press(Key::M, Modifiers::NONE);
        let (events, is_late) = feed(&mut clipboard, 0.0, vec![paste(), key.clone()]);
        assert_eq!((events, is_late), (vec![key], false));
        drop(hangs);
        assert_eq!(answer(&mut clipboard), [Event::Paste("a link".to_owned())]);
    }

    #[test]
    fn a_paste_times_out_once_and_its_late_text_is_dropped() {
        let system =
            Arc::new(FakeBackend { text: "late".to_owned().into(), ..FakeBackend::default() });
        let mut clipboard = Clipboard::new(Arc::clone(&system) as Arc<dyn ClipboardBackend>);
        let hangs = system.owner.lock().unwrap();
        feed(&mut clipboard, 0.0, vec![paste()]);
        assert_eq!(feed(&mut clipboard, PASTE_TIMEOUT - 0.1, vec![]), (vec![], false));
        assert_eq!(feed(&mut clipboard, PASTE_TIMEOUT + 0.1, vec![]), (vec![], true));
        assert_eq!(feed(&mut clipboard, PASTE_TIMEOUT + 0.2, vec![]), (vec![], false));
        for _ in 0..2 * MAX_READERS {
            feed(&mut clipboard, 10.0, vec![paste()]);
        }
        assert_eq!(
            clipboard.readers.load(Ordering::Acquire),
            MAX_READERS,
            "the maximum number of readers"
        );
        clipboard.pending_pastes.clear();
        drop(hangs);
        while clipboard.readers.load(Ordering::Acquire) > 0 {
            std::thread::sleep(Duration::from_millis(10));
        }
        *system.text.lock().unwrap() = "next".to_owned();
        assert_eq!(text_of(&mut clipboard, paste()), [Event::Paste("next".to_owned())]);
    }

    #[test]
    fn closing_does_not_wait_for_an_owner_that_hangs() {
        let system = Arc::new(FakeBackend::default());
        let hangs = system.owner.lock().unwrap();
        Clipboard::new(Arc::clone(&system) as Arc<dyn ClipboardBackend>).close();
        drop(hangs);
    }

    #[test]
    fn a_copied_text_is_pasted_by_every_paste_key_and_the_newest_copy_wins() {
        let system = Arc::new(FakeBackend::default());
        let mut clipboard = Clipboard::new(Arc::clone(&system) as Arc<dyn ClipboardBackend>);
        let ctx = Context::default();
        ctx.copy_text("one".to_owned());
        ctx.copy_text("two\r\nlines".to_owned());
        clipboard.take_copies(&ctx);
        assert!(ctx.output(|output| output.commands.is_empty()), "eframe gets none of the copies");
        while *system.text.lock().unwrap() != "two\r\nlines" {
            std::thread::sleep(Duration::from_millis(10));
        }
        let text = || "two\nlines".to_owned();
        for key in
            [paste(), press(Key::Paste, Modifiers::NONE), press(Key::Insert, Modifiers::SHIFT)]
        {
            assert_eq!(text_of(&mut clipboard, key), [Event::Paste(text())]);
        }
        let pos = Pos2::new(3.0, 4.0);
        let middle = Event::PointerButton {
            pos,
            button: PointerButton::Middle,
            pressed: true,
            modifiers: Modifiers::NONE,
        };
        let (mut events, _) = feed(&mut clipboard, 0.0, vec![middle.clone()]);
        if events.len() == 1 {
            events.extend(answer(&mut clipboard));
        }
        assert_eq!(events, [middle, Event::MiddleClickPaste { pos, text: text() }]);
        let keys = vec![press(Key::C, Modifiers::COMMAND), press(Key::X, Modifiers::COMMAND)];
        assert_eq!(feed(&mut clipboard, 0.0, keys).0, [Event::Copy, Event::Cut]);
    }
}

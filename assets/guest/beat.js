// A worker that ticks: the timers of a hidden page may run once a minute only.
setInterval(() => postMessage(null), 500);

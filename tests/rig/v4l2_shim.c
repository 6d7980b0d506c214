/* A fake camera at /dev/video0 for one process, preloaded with LD_PRELOAD below real V4L2 client
 * code. The device is a memfd, so that mmap and poll need no replacement. open, directory listings
 * and ioctl are answered here. All real cameras are hidden.
 *
 * FAKE_FORMAT=YUYV|MJPG|H264   the offered format (default YUYV), at 640x480 and 1280x720, 30 fps
 * FAKE_JPEG=FILE               the JPEG frames: for each a 32-bit length in host order, then bytes
 * FAKE_OPEN=EACCES|ENOENT      opening fails with this error; with ENOENT no camera is listed
 * FAKE_BUSY_MS=n               another program uses the camera for n ms after the first opening
 * FAKE_UNPLUG=n                unplugged after n frames, plugged in again 1500 ms later
 * FAKE_STALL=n                 sends nothing for 3500 ms after n frames
 *
 * When the process ends, it prints `delivered N` on standard error: the number of frames that the
 * client dequeued.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/videodev2.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>

extern int ftruncate(int, off_t);
extern ssize_t write(int, const void *, size_t);
extern off_t lseek(int, off_t, int);

enum { BUFFERS = 4, BUFFER_BYTES = 1280 * 720 * 2 };

static int device = -1, is_unlisted, queue[BUFFERS], queued, frames;
static unsigned width = 640, height = 480;
static unsigned char *memory;
static double gone_until, started;

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec + now.tv_nsec / 1e9;
}

static void sleep_for(double span) {
    struct timespec wait = { (time_t)span, (long)((span - (time_t)span) * 1e9) };
    if (span > 0) nanosleep(&wait, NULL);
}

static int setting(const char *name) {
    const char *text = getenv(name);
    return text ? atoi(text) : 0;
}

static int is_set_to(const char *name, const char *value) {
    const char *text = getenv(name);
    return text && !strcmp(text, value);
}

static int is_gone(void) { return seconds() < gone_until || is_set_to("FAKE_OPEN", "ENOENT"); }

static int is_busy(void) { return (seconds() - started) * 1000 < setting("FAKE_BUSY_MS"); }

__attribute__((destructor)) static void end(void) {
    fprintf(stderr, "delivered %d\n", frames);
}

static unsigned format(void) {
    const char *name = getenv("FAKE_FORMAT");
    if (!name) name = "YUYV";
    return v4l2_fourcc(name[0], name[1], name[2], name[3]);
}

static int fail(int error) { errno = error; return -1; }

/* An open file with this text. */
static int text_file(const char *text) {
    int fd = memfd_create("fake-sysfs", MFD_CLOEXEC);
    write(fd, text, strlen(text));
    lseek(fd, 0, SEEK_SET);
    return fd;
}

/* Opens a path of the fake camera or hides a real camera; returns -2 for all other paths. */
static int fake_open(const char *path) {
    if (!path) return -2;
    if (!strcmp(path, "/dev/video0")) {
        if (is_gone()) return fail(ENOENT);
        if (is_set_to("FAKE_OPEN", "EACCES")) return fail(EACCES);
        if (!started) started = seconds();
        device = memfd_create("fake-camera", MFD_CLOEXEC);
        ftruncate(device, BUFFERS * BUFFER_BYTES);
        memory = mmap(NULL, BUFFERS * BUFFER_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, device, 0);
        queued = 0;
        return device;
    }
    if (!strcmp(path, "/sys/class/video4linux/video0/name")) return text_file("Fake Camera\n");
    if (!strcmp(path, "/sys/class/video4linux/video0/index")) return text_file("0\n");
    return strncmp(path, "/dev/video", 10) ? -2 : fail(ENOENT);
}

#define OPEN(NAME) \
    int NAME(const char *path, int flags, ...) { \
        static int (*real)(const char *, int, ...); \
        va_list rest; \
        va_start(rest, flags); \
        int mode = va_arg(rest, int), fake = fake_open(path); \
        va_end(rest); \
        if (fake != -2) return fake; \
        if (!real) real = dlsym(RTLD_NEXT, #NAME); \
        return real(path, flags, mode); \
    }
OPEN(open)
OPEN(open64)

/* In /dev, video0 is listed and no other camera. */
static DIR *dev;

DIR *opendir(const char *path) {
    static DIR *(*real)(const char *);
    if (!real) real = dlsym(RTLD_NEXT, "opendir");
    DIR *folder = real(path);
    if (!strcmp(path, "/dev")) { dev = folder; is_unlisted = 1; }
    return folder;
}

struct dirent64 *readdir64(DIR *folder) {
    static struct dirent64 *(*real)(DIR *), entry;
    if (!real) real = dlsym(RTLD_NEXT, "readdir64");
    if (folder == dev && is_unlisted && !is_gone()) {
        is_unlisted = 0;
        entry.d_ino = 1, entry.d_type = DT_CHR, entry.d_reclen = sizeof entry;
        strcpy(entry.d_name, "video0");
        return &entry;
    }
    struct dirent64 *found;
    do found = real(folder);
    while (folder == dev && found && !strncmp(found->d_name, "video", 5));
    return found;
}

/* A dark red frame with a white bar that moves by 16 pixels per frame. */
static unsigned paint_yuyv(unsigned char *to) {
    unsigned left = frames * 16 % (width - 64);
    for (unsigned y = 0; y < height; y++)
        for (unsigned x = 0; x < width; x += 2, to += 4) {
            int is_bar = x >= left && x < left + 64;
            to[0] = to[2] = is_bar ? 235 : 81;
            to[1] = is_bar ? 128 : 90;
            to[3] = is_bar ? 128 : 240;
        }
    return width * height * 2;
}

static unsigned copy_jpeg(unsigned char *to) {
    static FILE *file;
    unsigned bytes = 0;
    if (!file) file = fopen(getenv("FAKE_JPEG"), "rb");
    if (!file) return 0;
    if (fread(&bytes, 4, 1, file) != 1) {
        rewind(file);
        if (fread(&bytes, 4, 1, file) != 1) return 0;
    }
    return fread(to, 1, bytes < BUFFER_BYTES ? bytes : BUFFER_BYTES, file);
}

static int dequeue(struct v4l2_buffer *buffer) {
    static double next;
    double now = seconds();
    if (next < now - 0.1) next = now;
    sleep_for(next - now);
    next += 1 / 30.0;
    if (setting("FAKE_STALL") && frames == setting("FAKE_STALL")) sleep_for(3.5);
    if (setting("FAKE_UNPLUG") && frames == setting("FAKE_UNPLUG")) {
        gone_until = seconds() + 1.5;
        frames++;
        return fail(ENODEV);
    }
    if (seconds() < gone_until) return fail(ENODEV);
    if (!queued) return fail(EAGAIN);
    int index = queue[0];
    memmove(queue, queue + 1, --queued * sizeof *queue);
    unsigned char *to = memory + index * BUFFER_BYTES;
    buffer->index = index;
    buffer->bytesused = format() == V4L2_PIX_FMT_MJPEG ? copy_jpeg(to) : paint_yuyv(to);
    buffer->sequence = frames++;
    now = seconds();
    buffer->timestamp.tv_sec = (time_t)now;
    buffer->timestamp.tv_usec = (now - (time_t)now) * 1e6;
    return 0;
}

static int control(unsigned long request, void *arg) {
    struct v4l2_format *format_request = arg;
    struct v4l2_buffer *buffer = arg;
    if (seconds() < gone_until && request != VIDIOC_DQBUF) return fail(ENODEV);
    switch (request) {
    case VIDIOC_QUERYCAP: {
        struct v4l2_capability *caps = arg;
        strcpy((char *)caps->card, "Fake Camera");
        strcpy((char *)caps->driver, "fake");
        caps->device_caps = V4L2_CAP_VIDEO_CAPTURE | V4L2_CAP_STREAMING;
        caps->capabilities = caps->device_caps | V4L2_CAP_DEVICE_CAPS;
        return 0;
    }
    case VIDIOC_ENUM_FMT: {
        struct v4l2_fmtdesc *kind = arg;
        if (kind->index) return fail(EINVAL);
        kind->pixelformat = format();
        return 0;
    }
    case VIDIOC_ENUM_FRAMESIZES: {
        struct v4l2_frmsizeenum *size = arg;
        if (size->index > 1) return fail(EINVAL);
        size->type = V4L2_FRMSIZE_TYPE_DISCRETE;
        size->discrete.width = size->index ? 1280 : 640;
        size->discrete.height = size->index ? 720 : 480;
        return 0;
    }
    case VIDIOC_ENUM_FRAMEINTERVALS: {
        struct v4l2_frmivalenum *interval = arg;
        if (interval->index) return fail(EINVAL);
        interval->type = V4L2_FRMIVAL_TYPE_DISCRETE;
        interval->discrete.numerator = 1;
        interval->discrete.denominator = 30;
        return 0;
    }
    case VIDIOC_S_FMT:
        if (is_busy()) return fail(EBUSY);
        width = format_request->fmt.pix.width, height = format_request->fmt.pix.height;
        /* fall through */
    case VIDIOC_G_FMT:
        format_request->fmt.pix.width = width, format_request->fmt.pix.height = height;
        format_request->fmt.pix.pixelformat = format();
        format_request->fmt.pix.field = V4L2_FIELD_NONE;
        format_request->fmt.pix.bytesperline = width * 2;
        format_request->fmt.pix.sizeimage = BUFFER_BYTES;
        return 0;
    case VIDIOC_S_PARM:
    case VIDIOC_G_PARM: {
        struct v4l2_streamparm *rate = arg;
        rate->parm.capture.timeperframe.numerator = 1;
        rate->parm.capture.timeperframe.denominator = 30;
        return 0;
    }
    case VIDIOC_REQBUFS: {
        struct v4l2_requestbuffers *request_buffers = arg;
        if (is_busy()) return fail(EBUSY);
        if (request_buffers->count > BUFFERS) request_buffers->count = BUFFERS;
        return 0;
    }
    case VIDIOC_QUERYBUF:
        buffer->length = BUFFER_BYTES;
        buffer->m.offset = buffer->index * BUFFER_BYTES;
        return 0;
    case VIDIOC_QBUF:
        if (queued < BUFFERS) queue[queued++] = buffer->index;
        return 0;
    case VIDIOC_DQBUF:
        return dequeue(buffer);
    case VIDIOC_STREAMON:
    case VIDIOC_STREAMOFF:
        queued = request == VIDIOC_STREAMON ? queued : 0;
        return 0;
    default:
        return fail(ENOTTY);
    }
}

/* The V4L2 crate calls ioctl through syscall(), so syscall() is replaced. */
long fake_syscall(long number, long a, long b, long c, long d, long e, long f) __asm__("syscall");

long fake_syscall(long number, long a, long b, long c, long d, long e, long f) {
    static long (*real)(long, long, long, long, long, long, long);
    if (number == SYS_ioctl && (int)a == device && _IOC_TYPE((unsigned)b) == 'V')
        return control((unsigned)b, (void *)c);
    if (!real) real = (long (*)(long, long, long, long, long, long, long))dlsym(RTLD_NEXT, "syscall");
    return real(number, a, b, c, d, e, f);
}

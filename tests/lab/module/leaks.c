// SPDX-License-Identifier: Apache-2.0
/* Also under the terms of the GNU General Public License, version 2, as a module has to be.
 * A module that leaks in every way the kernel hands out memory, and one cache that does not.
 *
 * Nothing happens when it is loaded. A word written to /proc/leaks does one thing; the tests
 * know by the name of the function what must be said of it.
 */
#include <linux/gfp.h>
#include <linux/init.h>
#include <linux/kthread.h>
#include <linux/list.h>
#include <linux/module.h>
#include <linux/percpu.h>
#include <linux/proc_fs.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>

struct leaks_record {
	struct list_head link;
	char text[200];
};

#define LEAKS_BOUND 64

static struct kmem_cache *leaks_cache;
static LIST_HEAD(leaks_recent);
static unsigned int leaks_kept;
static struct task_struct *leaks_thread;
static void *leaks_last; /* hides the rest from nobody: each call overwrites it */

/* Lost at once: nothing keeps the address. */
static noinline void leaks_lose_kmalloc(void)
{
	leaks_last = kmalloc(96, GFP_KERNEL);
}

static noinline void leaks_lose_object(void)
{
	leaks_last = kmem_cache_alloc(leaks_cache, GFP_KERNEL);
}

static noinline void leaks_lose_vmalloc(void)
{
	leaks_last = vmalloc(3 * PAGE_SIZE);
}

static noinline void leaks_lose_pages(void)
{
	leaks_last = alloc_pages(GFP_KERNEL, 1);
}

static noinline void leaks_lose_percpu(void)
{
	leaks_last = (void __force *)__alloc_percpu(64, 8);
}

/* The error path forgets what the good path gives away. */
static noinline int leaks_on_error(int bad)
{
	char *buffer = kmalloc(512, GFP_KERNEL);

	if (!buffer)
		return -ENOMEM;
	memset(buffer, 0x5a, 512);
	if (bad)
		return -EINVAL;
	kfree(buffer);
	return 0;
}

/* Bounded: the oldest goes when a new one comes. Never to be called a leak. */
static noinline void leaks_remember(void)
{
	struct leaks_record *record = kmalloc(sizeof(*record), GFP_KERNEL);

	if (!record)
		return;
	list_add_tail(&record->link, &leaks_recent);
	if (++leaks_kept > LEAKS_BOUND) {
		struct leaks_record *oldest =
			list_first_entry(&leaks_recent, struct leaks_record, link);

		list_del(&oldest->link);
		kfree(oldest);
		leaks_kept--;
	}
}

/* Slowly: 1 KiB five times a second, for as long as the module is there. */
static noinline void leaks_slowly(void)
{
	leaks_last = kmalloc(1000, GFP_KERNEL);
}

static int leaks_run(void *unused)
{
	while (!kthread_should_stop()) {
		leaks_slowly();
		leaks_remember();
		schedule_timeout_interruptible(HZ / 5);
	}
	return 0;
}

/* What calls before left on the stack would keep for kmemleak what they lost. */
static noinline void leaks_scrub(void)
{
	char rest[2048];

	memset(rest, 0, sizeof(rest));
	barrier_data(rest);
}

static void leaks_times(void (*what)(void), int times)
{
	while (times-- > 0)
		what();
	leaks_last = NULL;
}

static ssize_t leaks_write(struct file *file, const char __user *from, size_t size, loff_t *at)
{
	char word[16] = "";
	int number;

	if (size >= sizeof(word) || copy_from_user(word, from, size))
		return -EINVAL;
	strim(word);
	if (!strcmp(word, "once")) {
		leaks_times(leaks_lose_object, 1);
	} else if (!strcmp(word, "loop")) {
		leaks_times(leaks_lose_kmalloc, 200);
		leaks_times(leaks_lose_vmalloc, 20);
		leaks_times(leaks_lose_pages, 50);
		leaks_times(leaks_lose_percpu, 10);
		leaks_times(leaks_remember, 500);
		for (number = 0; number < 40; number++)
			leaks_on_error(number % 4 == 0);
	} else if (!strcmp(word, "slowly") && !leaks_thread) {
		leaks_thread = kthread_run(leaks_run, NULL, "leaks");
		if (IS_ERR(leaks_thread))
			leaks_thread = NULL;
	} else {
		return -EINVAL;
	}
	leaks_scrub();
	return size;
}

static const struct proc_ops leaks_operations = {
	.proc_write = leaks_write,
};

static int __init leaks_init(void)
{
	leaks_cache = kmem_cache_create("leaks_object", 328, 0, SLAB_NO_MERGE, NULL);
	if (!leaks_cache)
		return -ENOMEM;
	if (!proc_create("leaks", 0200, NULL, &leaks_operations)) {
		kmem_cache_destroy(leaks_cache);
		return -ENOMEM;
	}
	return 0;
}

static void __exit leaks_exit(void)
{
	struct leaks_record *record, *next;

	remove_proc_entry("leaks", NULL);
	if (leaks_thread)
		kthread_stop(leaks_thread);
	list_for_each_entry_safe(record, next, &leaks_recent, link)
		kfree(record);
	/* The cache stays: an object of it is lost, and destroying it would only complain. */
}

module_init(leaks_init);
module_exit(leaks_exit);
MODULE_DESCRIPTION("leaks in every way the kernel hands out memory");
MODULE_LICENSE("GPL");
